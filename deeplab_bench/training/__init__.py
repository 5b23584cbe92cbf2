"""Train one model: data to checkpoint."""
