"""Simulations, and measurements of this project's own speed. No result depends on them."""
