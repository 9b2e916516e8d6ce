"""Import a class of the user, executing the bytes that were read and that its digest is of."""

import builtins
import importlib
import inspect
import random
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stdout
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType
from typing import Any

import numpy as np
import torch

from deep_cnn.errors import choose_from
from deep_cnn.source import Parts, Source, candidates
from deep_cnn.vision import declare_operators

# What was imported, by the name of its package. No other module can import it by this name.
_SOURCES: dict[str, Source] = {}


def create(
    source: Source, base: type, *args: object, **offered: object
) -> tuple[Any, Collection[str]]:
    """Import the class and return an object of it, and which of `offered` it was passed.

    Args:
        base: What the class must be a subclass of.
        args: The first arguments of its constructor.
        offered: Further arguments, for a constructor that has parameters of these names.

    Raises:
        ConfigError: There is no such class, it needs other arguments, or its code fails.
    """
    declare_operators()  # Many networks of users are made of torchvision's.
    with source.errors(), redirect_stdout(sys.stderr):  # The output may be a table.
        kind = _class(source, base)
        parameters = inspect.signature(kind).parameters
        taken = {name: value for name, value in offered.items() if name in parameters}
        needed = [
            name
            for name, one in parameters.items()
            if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        ]
        if missing := [name for name in needed if name not in taken][len(args) :]:
            raise source.error(
                f"its constructor needs {', '.join(missing)}; give them default values"
            )
        return kind(*args, **taken), taken.keys()


def _class(source: Source, base: type) -> type:
    """Import the module, and return the class."""
    where, _, name = source.text.rpartition(":")
    if not source.is_installed:
        _SOURCES.setdefault(source.package, source)
        where = ".".join((source.package, *source.module))
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    # In a worker, only the first trial imports the module: that must not change its numbers.
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        module = importlib.import_module(where)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
    kind = getattr(module, name, None)
    if isinstance(kind, type) and issubclass(kind, base):
        return kind
    if kind is not None:
        what = "a class" if base is object else "a subclass of torch.nn.Module"
        raise source.error(f"{name} is not {what}")
    kinds = {k: v for k, v in vars(module).items() if isinstance(v, type) and v is not base}
    names = [k for k, v in kinds.items() if issubclass(v, base)]
    raise source.error(
        f"there is no {name} in it; {choose_from(name, names) if names else 'write it'}"
    )


def _find(source: Source, name: str, parts: Parts) -> ModuleSpec | None:
    """Return the module `parts` below the folder, called `name`; None if it is no file read."""
    file = next((file for file in candidates(parts) if file in source.files), None)
    folder = source.folder.joinpath(*parts)
    if file is None:
        # A folder without __init__.py is a package, too.
        spec = ModuleSpec(name, None, is_package=True) if folder.is_dir() else None
        if spec is not None:
            spec.submodule_search_locations = [str(folder)]
        return spec
    is_package = file.endswith("__init__.py")
    return spec_from_file_location(
        name,
        source.folder / file,
        loader=_Loader(source, file),
        submodule_search_locations=[str(folder)] if is_package else None,
    )


class _Finder(MetaPathFinder):
    """Finds the modules of sources."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, *parts = fullname.split(".")
        source = _SOURCES.get(package)
        return _find(source, fullname, tuple(parts)) if source else None


class _Loader(SourceLoader):
    """Executes the bytes that the digest of a source is of; neither reads nor writes bytecode."""

    def __init__(self, source: Source, file: str) -> None:
        self.source, self.file = source, file

    def get_filename(self, fullname: str) -> str:
        return str(self.source.folder / self.file)

    def get_data(self, path: str | bytes) -> bytes:
        return self.source.files[self.file]

    def exec_module(self, module: ModuleType) -> None:
        own = {**vars(builtins), "__import__": self._import}
        vars(module)["__builtins__"] = own
        super().exec_module(module)

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import as Python's __import__ does, but files of the folder also without a dot.

        Such a file belongs to the package of its source, so that two folders may have files of the
        same name.
        """
        parts = None if level else self.source.siblings.get(name)
        if parts is None:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = importlib.import_module(".".join((self.source.package, *parts)))
        if fromlist:
            return builtins.__import__(module.__name__, globals, locals, fromlist)
        first = parts[: len(parts) - name.count(".")]
        return importlib.import_module(".".join((self.source.package, *first)))
