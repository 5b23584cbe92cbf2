"""The settings in `params.yaml`, and the published numbers that they cite."""
