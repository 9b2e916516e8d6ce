"""Find the user's home; give libraries a name and folders to write, where there are none."""

import os
from contextlib import suppress
from pathlib import Path

# Where libraries write, as a rule: the variable that moves the folder, and its usual place.
_FOLDERS = {
    "XDG_CACHE_HOME": ".cache",
    "XDG_DATA_HOME": ".local/share",
    "MPLCONFIGDIR": ".config/matplotlib",
}
_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # As getpass.getuser looks for it.


def expand_user(path: str) -> Path:
    """Return a path with ~ and ~user replaced; an unknown user's name stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own fails for an unknown user.


def ensure_home() -> None:
    """Set the variables that libraries need if this process has no name or no home to write.

    A home that can be read keeps its name: it may hold credentials and downloaded weights.
    """
    if not hasattr(os, "getuid"):
        return
    environ = os.environ
    if not environ.get("HOME"):
        environ.pop("HOME", None)  # Otherwise an empty one would be the root folder.
    if not any(environ.get(name) for name in _NAMES) and not _has_entry():
        environ["LOGNAME"] = f"uid{os.getuid()}"
    home = expand_user("~")
    has_home = home.is_absolute() and home.is_dir()
    missing = [k for k, v in _FOLDERS.items() if not _is_writable(Path(environ.get(k) or home / v))]
    if has_home and not missing:
        return
    with suppress(OSError):  # Without a temporary folder, the libraries have to say so.
        folder = _private_folder()
        if not has_home:
            environ["HOME"] = str(folder)
        for name in missing:
            environ[name] = str(folder / _FOLDERS[name])


def _has_entry() -> bool:
    import pwd  # Windows does not have it.

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _is_writable(folder: Path) -> bool:
    """Return whether a folder can be written, or made."""
    if not folder.is_absolute():  # `~`, of a process without a home.
        return False
    for path in (folder, *folder.parents):
        if os.path.lexists(path):
            return path.is_dir() and os.access(path, os.W_OK | os.X_OK)
    return False


def _private_folder() -> Path:
    """Return a folder of this user alone in the temporary folder; raise OSError."""
    import tempfile  # Few processes need it.

    folder = Path(tempfile.gettempdir()) / f"deep_cnn-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    is_ours = about.st_uid == os.getuid() and not folder.is_symlink() and folder.is_dir()
    # Anybody may have made a folder of this name.
    return folder if is_ours and not about.st_mode & 0o022 else Path(tempfile.mkdtemp())
