"""Imported by the server that workers are forked from: torch once for all, and no hasty end."""

import signal

import deep_cnn.sweep.served
import deep_cnn.sweep.worker  # noqa: F401 - what the forks need.

# A scheduler signals the whole group; the server must outlive its workers, or nobody could wait for
# them. It ends with the engine's pipe.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
