"""Read and recognise the source of a class of the user, such as nets/net.py:Net.

Only a command, or a sweep file that it names, may name such a class. A checkpoint never does.
"""

import ast
import hashlib
import importlib
import stat
import sys
import traceback
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from deep_cnn.config import TrainConfig
from deep_cnn.errors import CheckpointError, ConfigError, DeepCnnError
from deep_cnn.files import write_whole
from deep_cnn.home import expand_user
from deep_cnn.options import is_code
from deep_cnn.resources import is_out_of_memory
from deep_cnn.text import first_line

# The options that may name a class of the user.
CODE_OPTIONS = ("model", "schedule")
# A module below a folder: ("blocks", "residual") is blocks/residual.py.
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """The source of a class: its file, and the files of the same folder that it imports.

    Attributes:
        option: The option that names the class: model or schedule.
        text: The value of the option.
        folder: The folder of the file, or the outermost folder of its package.
        module: The module of the class below the folder.
        files: The content of each file, by its path in the folder.
        siblings: What the files import without a leading dot from the folder, by name.
    """

    option: str
    text: str
    folder: Path
    module: Parts
    files: Mapping[str, bytes]
    siblings: Mapping[str, Parts]

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the files and of the name of the class, wherever the folder is."""
        content = (self.module, self.text.rpartition(":")[2], sorted(self.files.items()))
        return hashlib.sha256(repr(content).encode()).hexdigest()

    @cached_property
    def package(self) -> str:
        """The name under which the folder is imported: another one for every content."""
        text = f"{self.folder}\n{self.digest}".encode(errors="surrogatepass")
        return f"deep_cnn_source_{hashlib.sha256(text).hexdigest()[:16]}"

    @property
    def is_installed(self) -> bool:
        """Whether it is a module of an installed package, which has files of other kinds, too."""
        return _is_installed(self.text, self.folder)

    def error(self, text: str) -> ConfigError:
        """Return an error about the class."""
        return ConfigError(f"--{self.option}={self.text}: {text}", option=self.option)

    @contextmanager
    def errors(self, advice: str = "correct the code") -> Iterator[None]:
        """Raise a ConfigError, with the line of the file, for errors in this context."""
        try:
            yield
        except (Exception, SystemExit) as error:
            is_stop = type(error) is Exception and not error.args  # By W&B's agent.
            if isinstance(error, DeepCnnError) or is_out_of_memory(error) or is_stop:
                raise
            paths = {str(self.folder / file) for file in self.files}
            frames = traceback.extract_tb(error.__traceback__)
            lines = [
                f"{one.filename}, line {one.lineno}: " for one in frames if one.filename in paths
            ]
            what = f"{type(error).__name__}: {first_line(error)}".replace(f"{self.package}.", ".")
            raise self.error(f"{lines[-1] if lines else ''}{what}; {advice}") from error


def read_source(option: str, text: str) -> Source:
    """Return the source of the class that an option names, without executing it.

    `text` is file.py:Class, where the file is relative to the working directory, or
    package.module:Class. Raises ConfigError if a file is missing or is not Python.
    """
    if not is_code(text):
        problem = "names no class; write file.py:Class or package.module:Class"
        raise ConfigError(f"--{option}={text} {problem}", option=option)
    where = text.rpartition(":")[0]
    try:
        path = _locate(where)
        if not stat.S_ISREG(path.stat().st_mode):  # A pipe would block.
            raise OSError(None, "not an ordinary file", str(path))
        folder = path.parent
        while all((each / "__init__.py").is_file() for each in (folder, folder.parent)):
            folder = folder.parent
        module = path.relative_to(folder).with_suffix("").parts
        module = module[:-1] if module[-1] == "__init__" else module
        if any("." in part for part in module):
            raise ValueError("the name of a module has no dot")
        beside = None if _is_installed(text, folder) else path.relative_to(folder).parts[:-1]
        files, siblings = _read_files(folder, module, beside)
    except OSError as error:
        reason = error.strerror or "there is no such module"
        name = error.filename or where
        raise ConfigError(
            f"--{option}={text}: {name} cannot be read ({reason}); name a file or a module, and the"
            " class in it",
            option=option,
        ) from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        name = getattr(error, "filename", None) or where
        reason = getattr(error, "msg", None) or first_line(error)
        raise ConfigError(
            f"--{option}={text}: {name}{line}: {reason}; correct the file", option=option
        ) from error
    return Source(option, text, folder, module, files, siblings)


def _locate(where: str) -> Path:
    """Return the file of a path or of a module, without importing packages; raise OSError."""
    if where.endswith(".py"):
        return expand_user(where).resolve()  # What it imports lies beside it, not beside a link.
    importlib.invalidate_caches()
    name, *rest = where.split(".")
    try:
        spec = PathFinder.find_spec(name, [str(Path.cwd())]) or find_spec(name)
    except ValueError:  # Of __main__, for instance.
        spec = None
    for part in rest:
        name = f"{name}.{part}"
        spec = spec and PathFinder.find_spec(name, spec.submodule_search_locations or [])
    if spec is None or not (spec.origin or "").endswith(".py"):
        raise FileNotFoundError
    return Path(str(spec.origin))


def _read_files(
    folder: Path, module: Parts, beside: Parts | None
) -> tuple[dict[str, bytes], dict[str, Parts]]:
    """Return the files of a source, and its siblings.

    `beside` is the folder, below `folder`, of files that need no dot, if there is one.
    """
    files: dict[str, bytes] = {}
    siblings: dict[str, Parts] = {}
    todo = [module]
    while todo:
        parts = todo.pop()
        file = _file(folder, parts)
        if file is None or file in files:
            continue
        files[file] = (folder / file).read_bytes()
        with warnings.catch_warnings(action="ignore"):  # They appear when it is imported.
            tree = ast.parse(files[file], str(folder / file))
        package = parts if file.endswith("__init__.py") else parts[:-1]
        todo += [parts[:i] for i in range(len(parts))]
        for level, name, inside in _imports(tree):
            named = tuple(name.split(".")) if name else ()
            bases = [package[: len(package) - level + 1] + named] if level else []
            if not level and named[0] not in (*sys.stdlib_module_names, "deep_cnn"):
                bases = [] if beside is None else [beside + named]
                bases += [named[1:]] if named[0] == folder.name else []
            for base in bases:
                found = [one for one in (base, *((*base, k) for k in inside)) if _file(folder, one)]
                todo += found
                if found and not level:
                    siblings.setdefault(name, base)
    return files, siblings


def _imports(tree: ast.Module) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the leading dots, the module, and the names that it is asked for, of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]


def _is_installed(text: str, folder: Path) -> bool:
    is_file = text.rpartition(":")[0].endswith(".py")
    return not is_file and bool({"site-packages", "dist-packages"} & set(folder.parts))


def candidates(parts: Parts) -> Iterable[str]:
    """Return the files that a module below a folder may be, the first one found counts."""
    return "/".join((*parts, "__init__.py")), f"{'/'.join(parts)}.py"


def _file(folder: Path, parts: Parts) -> str | None:
    """Return the file of a module below a folder, or None."""
    return next((file for file in candidates(parts) if (folder / file).is_file()), None)


def write_archive(path: Path, sources: Iterable[Source], *, make_folder: bool = True) -> None:
    """Write the files of sources as a zip file, in a folder for each option; raise OutputError."""

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as file:
            for source in sources:
                for name, text in sorted(source.files.items()):
                    file.writestr(zipfile.ZipInfo(f"{source.option}/{name}"), text)

    write_whole(path, write, make_folder=make_folder)


def code_arguments(config: TrainConfig) -> list[str]:
    """Return the arguments that name the classes of the user again, beside a checkpoint."""
    values = {name: getattr(config, name) for name in CODE_OPTIONS}
    return [f"--{name}={text}" for name, text in values.items() if is_code(text)]


def require_named(path: Path, config: TrainConfig, named: Collection[str]) -> None:
    """Raise CheckpointError if `config`, of a checkpoint, has code that no option has `named`.

    A schedule is needed for training only.
    """
    for option in CODE_OPTIONS[: 1 if config.test_net else None]:
        text = getattr(config, option)
        if is_code(text) and option not in named:
            raise CheckpointError(
                f"{path} was trained with code of its own, which a checkpoint does not import; name"
                f" it again, as in --{option}={text}"
            )


def require_same(path: Path, option: str, text: str, recorded: Mapping[str, str] | None) -> None:
    """Raise ConfigError unless the source of `text` is the one that a checkpoint has recorded."""
    if read_source(option, text).digest != (recorded or {}).get(option):
        raise ConfigError(
            f"--{option}={text} is not the source that {path} was trained with; restore it from"
            f" logger/<run>.source.zip, or begin a new run with --weights={path}",
            option=option,
        )
