"""Use trained networks: predict scores of pictures, and export programs for other software."""
