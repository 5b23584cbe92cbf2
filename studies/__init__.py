"""Simulations, and measurements of the suite itself. No result depends on them."""
