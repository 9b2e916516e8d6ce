"""Run W&B's sweep files with W&B's meaning, without an account or a network."""
