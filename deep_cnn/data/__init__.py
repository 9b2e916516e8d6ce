"""Turn pictures into tensors, independent of tasks and models."""
