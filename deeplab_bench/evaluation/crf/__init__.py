"""The fully connected CRF of DeepLabv1 and v2 (DeepLabv2, Section 2.3), on pydensecrf.

Nothing in here imports torch: worker processes do the work, and start light.
"""

from deeplab_bench.evaluation.crf.inference import (
    CRFError,
    CRFParameters,
    mean_field,
    require_pydensecrf,
)
from deeplab_bench.evaluation.crf.refinement import Pictures, Refined, Task, refine

__all__ = [
    "CRFError",
    "CRFParameters",
    "Pictures",
    "Refined",
    "Task",
    "mean_field",
    "refine",
    "require_pydensecrf",
]
