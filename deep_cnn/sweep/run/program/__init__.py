"""Run the programs of a sweep that are not deep_cnn, as W&B's agent does."""
