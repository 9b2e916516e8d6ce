"""Write the golden files: `python -m tests.golden.make [PART ...]`, all parts by default."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.golden import command_lines, folders, histories, parts
from tests.golden.common import HERE, machine, write


def _options() -> None:
    write("options.json", parts.options())


def _command_lines() -> None:
    with _folder() as folder:
        command_lines.prepare(folder)
        cases = command_lines.all_cases()
        write("command_lines.json", [[c, command_lines.outcome(c, folder)] for c in cases], depth=1)


def _samples() -> None:
    with _folder() as folder:
        for file in parts.SWEEPS:
            write(f"samples/{file.stem}.json", parts.sampled(file, folder), depth=1)
        text = {
            form: {file.stem: parts.printed(file, folder, form) for file in parts.SWEEPS}
            for form in ("csv", "commands")
        }
        write("samples_as_text.json", text)


def _bayes() -> None:
    points = {name: parts.proposed(file) for name, file in parts.BAYES.items()}
    write("bayes.json", {"machine": machine(), "points": points}, depth=3)


def _histories() -> None:
    found = {}
    for name in histories.RUNS:
        with _folder() as folder:
            found[name] = histories.trained(name, folder)
    write("histories.json", {"machine": machine(), "runs": found}, depth=3)


def _folders() -> None:
    found: dict[str, dict[str, object]] = {}
    for name in folders.TEXTS:
        if not (HERE / "folders" / name).exists():  # They are of earlier versions on purpose.
            folders.make(name)
        with _folder() as folder:
            found[name] = folders.expected(name, folders.copied(name, folder))
    with _folder() as folder:
        found["half"] |= {"finished": folders.finished_half(folders.copied("half", folder))}
    with _folder() as folder:
        found["checkpoint"] = folders.gone_on(folders.copied("finished", folder))
    write("folders.json", {"machine": machine(), "folders": found}, depth=4)


def _wandb() -> None:
    with _folder() as folder:
        write("wandb_offline.json", parts.offline(folder))


def _cache() -> None:
    with _folder() as folder:
        content = {"entries": parts.cached(folder), "fingerprints": parts.fingerprints()}
        write("cache.json", content)


def _folder() -> "tempfile.TemporaryDirectory[str]":
    return _Folder()


class _Folder(tempfile.TemporaryDirectory):  # type: ignore[type-arg]
    def __enter__(self) -> Path:
        return Path(super().__enter__())


PARTS: Mapping[str, Callable[[], None]] = {
    "options": _options,
    "command_lines": _command_lines,
    "samples": _samples,
    "bayes": _bayes,
    "histories": _histories,
    "folders": _folders,
    "wandb": _wandb,
    "cache": _cache,
}


def main(names: list[str]) -> None:
    """Write the parts of these names, or all."""
    unknown = set(names) - PARTS.keys()
    if unknown:
        raise SystemExit(f"{', '.join(unknown)}: choose from {', '.join(PARTS)}")
    for name in names or PARTS:
        begin = time.monotonic()
        PARTS[name]()
        print(f"{name}: {time.monotonic() - begin:.1f} s, in {HERE.name}/")


if __name__ == "__main__":
    main(sys.argv[1:])
