"""Train one run: its session, its epochs, its checkpoints, and its end."""
