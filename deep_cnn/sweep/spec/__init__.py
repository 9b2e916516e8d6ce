"""Parse W&B sweep files: YAML text becomes a SweepSpec, or a list of all its errors."""
