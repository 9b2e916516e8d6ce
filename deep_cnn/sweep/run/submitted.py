"""Look for the file that `submit` leaves in the folder of a sweep, where its pilots must see it."""

from collections.abc import Mapping
from pathlib import Path

from deep_cnn.errors import ConfigError
from deep_cnn.sweep.run.folder_io import FolderIO

# The file lists the jobs of the sweep; scripts of jobs set the variable.
SUBMITTED = "submitted.csv"
VARIABLE = "DEEP_CNN_SUBMITTED"


def check_submitted(folder: Path, environ: Mapping[str, str]) -> None:
    """Raise ConfigError in a pilot that was submitted if it does not see the folder of its sweep.

    It would run the whole sweep alone, into a folder of its own machine.
    """
    if environ.get(VARIABLE) and SUBMITTED not in FolderIO().names(folder):
        raise ConfigError(
            f"{folder.absolute() / SUBMITTED}, which submit wrote, is not there: this machine does"
            " not see the folder of the sweep; submit again from a folder that all nodes share, or"
            " with --out_dir in one"
        )
