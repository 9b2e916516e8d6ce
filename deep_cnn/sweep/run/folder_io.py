"""Carry out the file operations of a sweep's folder: one method is one operation."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from deep_cnn.files import make_exclusively, temporary_path, unwritable, write_text


class FolderIO:
    """The file operations of a trial store and its work folders.

    Nothing else in `sweep/run` touches the folder of a sweep. Tests count the calls, delay them as
    a network file system does, and hide writes for a while as its attribute caches do.
    """

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, none if there is no such folder."""
        try:
            return os.listdir(folder)  # noqa: PTH208 - Path.iterdir makes a Path of each name.
        except OSError:
            return []

    def read(self, path: Path) -> bytes | None:
        """Return the content of a file, or None if it cannot be read."""
        try:
            return path.read_bytes()
        except OSError:
            return None

    def exists(self, path: Path) -> bool:
        """Return whether there is a file or folder."""
        return path.exists()

    def modified(self, path: Path) -> float | None:
        """Return when a file was written or touched, in seconds by the file system's clock."""
        try:
            return path.stat().st_mtime
        except OSError:
            return None

    def now(self, folder: Path) -> float:
        """Return the time by the clock of the file system, which all hosts share, in seconds."""
        path = temporary_path(folder / "now")
        try:
            path.touch()
            return path.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                path.unlink()

    def touch(self, path: Path) -> None:
        """Set the time of a file to now; its owner may lack the right or the file may be gone."""
        with suppress(OSError):
            os.utime(path)

    def create(self, path: Path, text: str) -> bool:
        """Make a file that appears whole; return False if it exists. OutputError."""
        return make_exclusively(path, text)

    def replace(self, path: Path, text: str) -> None:
        """Write a whole file in place of what is there. OutputError."""
        write_text(path, text)

    def make_folder(self, path: Path) -> bool:
        """Make a folder whose parent exists; return False if it exists. OutputError."""
        try:
            path.mkdir()
        except FileExistsError:
            return False
        except OSError as error:
            raise unwritable(path, error) from error
        return True

    def make_folders(self, path: Path) -> None:
        """Make a folder with those above it, unless they exist. OutputError."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error

    def move(self, source: Path, target: Path) -> None:
        """Move a file, also to another file system; nothing happens if another process did."""
        try:
            source.replace(target)
        except FileNotFoundError:
            if source.exists():  # The folder of the target is missing.
                target.parent.mkdir(parents=True, exist_ok=True)
                self.move(source, target)
        except OSError as error:
            beside = temporary_path(target)
            try:
                shutil.copy2(source, beside)
                beside.replace(target)
                source.unlink()
            except FileNotFoundError:
                return
            except OSError:
                raise unwritable(target, error) from error

    def share(self, source: Path, target: Path) -> bool:
        """Give a file a second name, or copy it; return False if it does not exist. OutputError.

        Files of runs are replaced, never changed, so that the two names do not affect each other.
        """
        try:
            try:
                os.link(source, target)
            except FileNotFoundError:
                return False
            except OSError:  # A file system without links.
                shutil.copy2(source, target)
        except OSError as error:
            raise unwritable(target, error) from error
        return True

    def copy(self, source: Path, target: Path) -> None:
        """Copy a file that grows, such as a log, if it exists. OutputError."""
        with suppress(FileNotFoundError):
            try:
                shutil.copyfile(source, target)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise unwritable(target, error) from error

    def rename_folder(self, source: Path, target: Path) -> None:
        """Give a folder its name, which it is only known by when it is complete. OutputError."""
        try:
            source.rename(target)
        except OSError as error:
            raise unwritable(target, error) from error

    def remove(self, path: Path) -> None:
        """Remove a file or a folder with all that it has."""
        try:
            path.unlink()
        except (IsADirectoryError, PermissionError):  # macOS says EPERM for a folder.
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            return
