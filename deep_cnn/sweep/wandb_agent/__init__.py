"""Run the trials that W&B's server assigns, in processes that stay alive between trials."""
