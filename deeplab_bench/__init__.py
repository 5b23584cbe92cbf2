"""Reproducibility benchmark for the DeepLab line of semantic segmentation."""
