"""Choose configurations and stop runs early; all functions are pure."""
