"""The page of a profile as one HTML file, which needs no network and no other file."""

from deeplab_bench.report.web import page

__all__ = ["page"]
