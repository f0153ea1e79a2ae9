"""One training loop, and its checkpoints, for everything that learns."""
