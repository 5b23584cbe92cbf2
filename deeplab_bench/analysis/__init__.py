"""Analyse networks: receptive fields and atrous convolution."""
