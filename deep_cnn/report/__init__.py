"""Compare runs: a leaderboard, and two runs side by side."""
