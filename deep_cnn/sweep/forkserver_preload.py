"""Prepare the process that workers are forked from: import torch once."""

import gc

import deep_cnn.sweep.run.store_source
import deep_cnn.sweep.wandb_agent.wandb_source
import deep_cnn.tasks.perception
import deep_cnn.training.fit  # noqa: F401 - what the forks need.

# A garbage collection writes to the objects, so each worker would get its own copy of them.
gc.collect()
gc.freeze()
