"""Where the numbers of a run go: one protocol, one file for each place."""

from deep_cnn.tracking.base import Tracker
from deep_cnn.tracking.files import FileTracker

__all__ = ["FileTracker", "Tracker"]
