"""Pictures to tensors; knows no task and no model."""
