"""Many runs: W&B's sweep files with W&B's meaning, with no account and no network."""
