"""Score a checkpoint."""
