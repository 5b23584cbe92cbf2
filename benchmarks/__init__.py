"""Comparisons with other libraries. No result depends on them."""
