"""One run: what it begins with, its epochs, its checkpoints, and how it ends."""
