"""Decide whether a sweep file continues the sweep that a folder holds."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from deep_cnn.argv import parse_run
from deep_cnn.config import TrainConfig, all_options
from deep_cnn.errors import SpecError
from deep_cnn.options import is_code, option_name
from deep_cnn.source import CODE_OPTIONS, read_source
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.records import read_record
from deep_cnn.sweep.spec.distributions import Distribution, Listed
from deep_cnn.sweep.spec.parse import parse_content
from deep_cnn.sweep.spec.points import next_point
from deep_cnn.sweep.spec.schema import SweepSpec, is_identity
from deep_cnn.sweep.spec.values import to_jsonable, value_key

NEW_SWEEP = "or begin a new sweep: another name: in the file"


@dataclass(frozen=True, slots=True)
class DataRecord:
    """The data of a sweep: the task, and a hash of the pictures and targets of each split."""

    task: str
    digest: str


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """What sweep.json holds.

    Attributes:
        content: The content of the sweep file.
        seed: The seed of the search.
        constants: Options of every run that were set on the command line.
        grids: The `parameters` of a grid before values were added to it, oldest first.
        data: The data, or None if an earlier version began the sweep.
        by_level: Whether nested parameters are sorted within each level, as W&B does; earlier
            versions sorted a grid by the whole names.
        code: Digests of the sources of the user's networks and schedules, as in `code_of`; None
            if an earlier version began the sweep.
    """

    content: dict[str, Any]
    seed: int
    constants: dict[str, str] = field(default_factory=dict)
    grids: list[dict[str, Any]] = field(default_factory=list)
    data: DataRecord | None = None
    by_level: bool = False
    code: dict[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "content": to_jsonable(self.content)}


def continue_sweep(
    path: Path, known: SweepRecord | None, spec: SweepSpec, seed: int
) -> tuple[SweepSpec, SweepRecord]:
    """Return the sweep with what its record adds to the file, and its new record.

    Values may be added to a grid, run_cap may grow, and what cannot change a result may change.

    Args:
        path: The file of the record, for messages.
        known: The record, or None for a new sweep.
        spec: The sweep as its file and the command line have it.
        seed: The seed of the search.

    Raises:
        SpecError: It is another sweep.
    """
    wanted = SweepRecord(to_jsonable(spec.content), seed, dict(spec.constants), by_level=True)
    if known is None:
        return spec, replace(wanted, code=code_of(spec))
    if known.seed != seed:
        raise SpecError(
            f"{path}: this sweep has --seed={known.seed}, not {seed}; keep it, {NEW_SWEEP}"
        )
    if not known.by_level:
        spec = replace(spec, space=dict(sorted(spec.space.items())))
    spec = _with_constants(path, known, spec, seed)
    grids = list(known.grids)
    changed = list(_changes(known.content, wanted.content, spec))
    if changed == ["parameters"] and _space_of(known.content["parameters"], spec) is not None:
        grids.append(known.content["parameters"])
        changed = []
    if changed:
        raise SpecError(
            f"{path}: the sweep file has changed since the sweep began ({', '.join(changed)});"
            f" change it back, {NEW_SWEEP}"
        )
    earlier = tuple(space for grid in grids if (space := _space_of(grid, spec)) is not None)
    code = code_of(spec)
    for what, digest in (known.code or {}).items():
        if code.get(what, digest) != digest:
            raise SpecError(f"{path}: {_changed_code(what)}")
    record = replace(wanted, constants=dict(spec.constants), grids=grids, code=code)
    record = replace(record, data=known.data, by_level=known.by_level)
    return replace(spec, earlier=earlier), record


def stored_constants(folder: Path, spec: SweepSpec) -> dict[str, str]:
    """Return the options for every run that the sweep in a folder was begun with.

    An option that the file sets by now is left out.
    """
    record = read_record(SweepRecord, FolderIO().read(folder / "sweep.json"))
    set_in_file = {option_name(name.rpartition("/")[2]) for name in spec.space}
    stored = record.constants.items() if record else ()
    constants = {k: v for k, v in stored if k in all_options() and k not in set_in_file}
    _refuse_stored_code(folder, constants, spec)
    return constants


def _refuse_stored_code(folder: Path, stored: Mapping[str, str], spec: SweepSpec) -> None:
    """Raise SpecError if the stored options name code of the user, and the command does not."""
    for name in CODE_OPTIONS:
        if is_code(stored.get(name)) and name not in spec.constants:
            raise SpecError(
                f"{folder}: this sweep was begun with --{name}={stored[name]}, which is code; name"
                " it again on the command line"
            )


def code_of(spec: SweepSpec) -> dict[str, str]:
    """Return the digest of each class of the user that a sweep names, by `--option=text`.

    Raises ConfigError if a source is missing or is not Python.
    """
    if not spec.runs_deep_cnn:
        return {}
    named = list(parse_run(spec.argv({}), from_agent=True).items())
    for name, one in spec.space.items():
        values = one.values if isinstance(one, Listed) else ()
        named += [(option_name(name.rpartition("/")[2]), str(value)) for value in values]
    return {
        f"--{name}={text}": read_source(name, text).digest
        for name, text in named
        if name in CODE_OPTIONS and is_code(text)
    }


def check_code(config: TrainConfig, code: Mapping[str, str]) -> None:
    """Raise SpecError if a trial needs code that its sweep does not name, or that has changed.

    Args:
        config: The configuration of the trial, which the folder of the sweep may have stored.
        code: What `code_of` returned when the sweep was started.
    """
    for name in CODE_OPTIONS:
        text = getattr(config, name)
        if is_code(text) and f"--{name}={text}" not in code:
            raise SpecError(f"--{name}={text} is not in the sweep file; add it there, {NEW_SWEEP}")
        if is_code(text) and read_source(name, text).digest != code[f"--{name}={text}"]:
            raise SpecError(_changed_code(f"--{name}={text}"))


def _changed_code(what: str) -> str:
    return f"{what} has changed since the sweep began; change the code back, {NEW_SWEEP}"


def _with_constants(path: Path, known: SweepRecord, spec: SweepSpec, seed: int) -> SweepSpec:
    """Return the sweep with the stored constants; raise SpecError for one that has changed."""
    stored = {k: v for k, v in known.constants.items() if k in all_options()}
    _refuse_stored_code(path.parent, stored, spec)
    before = replace(spec, constants=stored)
    after = replace(spec, constants={**stored, **spec.constants})
    first = next_point(before, seed, 0, frozenset()) if spec.constants else None
    if first is None:
        return after
    old, new = (one.config(first.point).to_dict() for one in (before, after))
    for name in spec.constants:
        if is_identity(name) and old.get(name) != new.get(name):
            raise SpecError(
                f"{path}: this sweep has --{name}={old.get(name)}, not {new.get(name)}; keep it,"
                f" {NEW_SWEEP}"
            )
    return after


def _changes(known: Mapping[str, Any], wanted: Mapping[str, Any], spec: SweepSpec) -> Iterator[str]:
    """Yield the keys whose values make another sweep."""
    for key in sorted((known.keys() | wanted.keys()) - {"description"}):
        old, new = known.get(key), wanted.get(key)
        if key == "parameters" and spec.runs_deep_cnn:
            old, new = _without_fixed(old), _without_fixed(new)
        has_grown = key == "run_cap" and (new is None or (isinstance(old, int) and new > old))
        if old != new and not has_grown:
            yield key


def _without_fixed(parameters: Any) -> Any:
    """Return the parameters of a file without those of one value that are not its identity."""
    if not isinstance(parameters, Mapping):
        return parameters
    kept = {}
    for name, description in parameters.items():
        is_mapping = isinstance(description, Mapping)
        if is_mapping and "parameters" in description:
            kept[name] = {**description, "parameters": _without_fixed(description["parameters"])}
        elif not is_mapping or is_identity(option_name(name)) or not _has_one_value(description):
            kept[name] = description
    return kept


def _has_one_value(description: Mapping[str, Any]) -> bool:
    values = description.get("values")
    return "value" in description or (isinstance(values, list) and len(values) == 1)


def _space_of(parameters: Mapping[str, Any], spec: SweepSpec) -> Mapping[str, Distribution] | None:
    """Return the earlier space of a grid, or None unless `spec` has all of its values."""
    earlier = parse_content({"method": "grid", "parameters": parameters}, spec.name)
    if spec.method != "grid" or earlier is None:
        return None
    earlier = replace(earlier, runs_deep_cnn=spec.runs_deep_cnn)
    if earlier.space.keys() - earlier.fixed.keys() != spec.space.keys() - spec.fixed.keys():
        return None
    # What is fixed has the value that it has now.
    space = {k: one if k in spec.fixed else earlier.space[k] for k, one in spec.space.items()}
    for name, one in space.items():
        now = set(map(value_key, spec.space[name].grid or ()))
        if not set(map(value_key, one.grid or ())) <= now:
            return None
    return space
