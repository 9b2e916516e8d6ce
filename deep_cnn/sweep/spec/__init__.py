"""Understand W&B sweep files: YAML text becomes a SweepSpec, and every error is found at once."""
