"""Run the trials that the server of W&B assigns, in processes that stay warm."""
