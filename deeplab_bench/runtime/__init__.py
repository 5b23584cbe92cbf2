"""Devices and processes that torch uses."""
