"""Timings that no result depends on."""
