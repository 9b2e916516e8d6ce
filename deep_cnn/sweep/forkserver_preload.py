"""Prepare the process that workers are forked from: import torch once, and ignore SIGTERM."""

import gc
import signal

import deep_cnn.sweep.run.store_source
import deep_cnn.sweep.wandb_agent.wandb_source
import deep_cnn.tasks.perception
import deep_cnn.training.fit  # noqa: F401 - what the forks need.

# A scheduler signals the whole group. The server must outlive its workers, or no process could wait
# for them; it ends when the pipe to its parent closes.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
# A garbage collection writes to the objects, so each worker would get its own copy of them.
gc.collect()
gc.freeze()
