"""The fully connected CRF of DeepLabv1 and v2 (DeepLabv2, Section 2.3), on pydensecrf.

Only ``evaluate.py`` imports torch: worker processes import the other files and start quickly.
"""

from deeplab_bench.evaluation.crf.mean_field import (
    CRFError,
    CRFParameters,
    iterate_mean_field,
    require_pydensecrf,
)
from deeplab_bench.evaluation.crf.refinement import Pictures, Refined, Task, refine_images

__all__ = [
    "CRFError",
    "CRFParameters",
    "Pictures",
    "Refined",
    "Task",
    "iterate_mean_field",
    "refine_images",
    "require_pydensecrf",
]
