"""Keep the files of a running trial in a folder of its claim, and publish them when it is over.

A claim writes into `work/<trial>.<claim>/` only. Another process that takes the trial over shares
the newest whole checkpoint of the earlier claims, in a folder of its own, so that an owner that was
taken for dead has nothing left to overwrite when it wakes up. The files move to `results/`,
`models/` and `logger/` when the trial is over; whoever sees that this was not completed does it.
"""

from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

from deep_cnn.files import RunFiles, numbered_names
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.records import Trial

_STEPS = ("train", "val")


class WorkFolders:
    """The work folders of one sweep.

    Args:
        io: Carries out the file operations.
        folder: The folder of the sweep.
        out: The folder for results.
    """

    def __init__(self, io: FolderIO, folder: Path, out: Path) -> None:
        self.io, self.folder, self.out = io, folder / "work", out

    def make_folders(self) -> None:
        """Make the folders for results. OutputError."""
        files = RunFiles(self.out, "run")
        for path in (files.log, files.result, files.last):
            self.io.make_folders(path.parent)

    def files(self, number: int, claim: int, run_name: str) -> RunFiles:
        """Return the files of the run of a claim."""
        return RunFiles(self.out, run_name, work=self.folder / f"{number:05d}.{claim}")

    def open(
        self, number: int, claim: int, run_name: str, is_whole: Callable[[Path], bool]
    ) -> RunFiles:
        """Make the folder of a new claim, with the checkpoint that an earlier one has left.

        Args:
            number: The trial.
            claim: The new claim.
            run_name: The run of the trial.
            is_whole: Whether a checkpoint can be resumed.

        Raises:
            OutputError: The folder cannot be written.
        """
        files = self.files(number, claim, run_name)
        folder = files.last.parent
        if claim == 0:
            self.io.make_folder(folder)
            return files
        # It gets its name when it is complete: a kill leaves the earlier claim as the newest one.
        beside = self.folder / f".{number:05d}.{claim}.{token_hex(4)}"
        self.io.make_folder(beside)
        new = RunFiles(self.out, run_name, work=beside)
        claims = sorted((k for k in self._claims(number) if k < claim), reverse=True)
        earlier = [self.files(number, k, run_name) for k in claims]
        for old in (*earlier, RunFiles(self.out, run_name)):
            if self.io.share(old.last, new.last):
                if is_whole(new.last):
                    self._share_the_rest(old, new)
                    break
                self.io.remove(new.last)
        self.io.rename_folder(beside, folder)
        return files

    def _share_the_rest(self, old: RunFiles, new: RunFiles) -> None:
        for name in ("best", "result", "arguments", "journal"):
            self.io.share(getattr(old, name), getattr(new, name))
        for split in _STEPS:
            self.io.share(old.steps(split), new.steps(split))
        self.io.copy(old.log, new.log)  # Logs grow in place.

    def publish(self, number: int, claim: int, run_name: str, *, keep_last: bool = False) -> None:
        """Move the files of a trial that is over to the folders for results, the result last.

        It may be called again after a kill, and by several processes at once.

        Args:
            number: The trial.
            claim: The claim whose files count.
            run_name: The run of the trial.
            keep_last: Keep the last checkpoint, too, which a trial needs that may be resumed.
        """
        files, target = self.files(number, claim, run_name), RunFiles(self.out, run_name)
        folder = files.last.parent
        names = self.io.names(folder)
        if not keep_last and files.last.name in names:
            names.remove(files.last.name)
        if not keep_last and claim > 0:  # It is there if the trial failed for good before.
            self.io.remove(target.last)
        for name in sorted(names, key=lambda name: (name == files.result.name, name)):
            if name.startswith(f"{run_name}."):
                self.io.move(folder / name, _folder(target, name) / name)
        self.discard(number)

    def discard(self, number: int) -> None:
        """Remove the folders of a trial; they are never made again."""
        for claim in self._claims(number):
            self.io.remove(self.folder / f"{number:05d}.{claim}")

    def _claims(self, number: int) -> list[int]:
        """Return the claims of a trial that have a folder."""
        prefix = f"{number:05d}."
        names = (name for name in self.io.names(self.folder) if name.startswith(prefix))
        return [int(name[len(prefix) :]) for name in names if name[len(prefix) :].isdecimal()]

    def publish_rest(self, trials: Callable[[int], Trial | None]) -> None:
        """Publish what processes that were killed have not, and remove what is left of others."""
        for name in self.io.names(self.folder):
            digits = name.lstrip(".").partition(".")[0]
            trial = trials(int(digits)) if digits.isdecimal() else None
            if trial is not None and trial.outcome is not None:
                if trial.outcome.claim is not None and trial.run_name is not None:
                    self.publish(trial.number, trial.outcome.claim, trial.run_name)
                self.io.remove(self.folder / name)

    def reserve(self, number: int, run_name: str) -> str:
        """Take a name for the run of a trial, and return it, with -2, -3 ... if it is taken.

        The log that stands for the run until it is published says whose it is, so that a trial
        that was killed after this step takes the same name again.
        """
        text = (
            f"Trial {number} of sweeps/{self.folder.parent.name}: its files are in work/ there.\n"
        )
        for name in numbered_names(run_name):
            files = RunFiles(self.out, name)
            if self.io.exists(files.best):
                continue
            if self.io.create(files.log, text) or self.io.read(files.log) == text.encode():
                break
        return name

    def table(self, trial: Trial) -> Path:
        """Return the table of a trial that has begun, wherever it is by now."""
        name = trial.run_name or ""
        table = self.files(trial.number, trial.claim, name).table
        return table if self.io.exists(table) else RunFiles(self.out, name).table


def _folder(files: RunFiles, name: str) -> Path:
    """Return the folder for results that a file belongs to."""
    suffix = Path(name).suffix
    return {".log": files.log, ".zip": files.source, ".pt": files.last}.get(
        suffix, files.result
    ).parent
