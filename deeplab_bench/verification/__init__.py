"""Comparison of a run's committed results with those of another training of the same run."""
