"""Reproducibility benchmark for the DeepLab line of semantic segmentation.

``load`` opens a trained network for prediction.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeplab_bench.prediction.predictor import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from deeplab_bench.prediction.predictor import load  # imports torch, which takes seconds

    return load
