"""Training of one model, from packed data to a checkpoint."""
