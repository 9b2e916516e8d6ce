"""Run the trials of a sweep here: the store, the workers, and the engine that watches them."""
