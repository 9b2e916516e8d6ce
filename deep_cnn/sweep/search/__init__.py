"""Decide what to try next and what to stop: pure functions, without disk and clock."""
