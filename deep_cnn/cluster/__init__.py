"""Run sweeps and runs as jobs of a cluster."""
