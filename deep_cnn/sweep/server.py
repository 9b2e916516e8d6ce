"""Imported by the server that workers are forked from: torch once for all, and no hasty end."""

import gc
import signal

import deep_cnn.sweep.served
import deep_cnn.sweep.worker
import deep_cnn.tasks.perception  # noqa: F401 - what the forks need.

# A scheduler signals the whole group; the server must outlive its workers, or nobody could wait for
# them. It ends with the engine's pipe.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
# A collection writes into what it looks at, and each worker would have a copy of its own.
gc.collect()
gc.freeze()
