"""Prepare the process that the workers of a sweep of programs are forked from: the watcher.

It gets the orphans of workers that were killed. It ends when the processes that use it are gone,
however they ended, and kills all that is left before.
"""

import atexit
import warnings

import deep_cnn.sweep.run.program.source  # noqa: F401 - what the forks need.
from deep_cnn.sweep.run.program.descendants import become_subreaper, end_descendants

become_subreaper()
atexit.register(end_descendants)
# It learns of the end of orphans, which it did not start.
warnings.filterwarnings("ignore", message="forkserver: waitpid returned unexpected pid")
