"""Analyses of networks: receptive fields and atrous convolution."""
