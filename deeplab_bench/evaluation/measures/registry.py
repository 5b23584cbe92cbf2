"""The measures of a run, in the order of their entries in its JSON file."""

from deeplab_bench.evaluation.measures.boundaries import BoundaryMeasure
from deeplab_bench.evaluation.measures.confusion import ConfusionMeasure
from deeplab_bench.evaluation.measures.context_accuracy import ContextAccuracyMeasure
from deeplab_bench.evaluation.measures.measure import Measure
from deeplab_bench.evaluation.measures.object_size import ObjectSizeMeasure

MEASURES: tuple[type[Measure], ...] = (
    ConfusionMeasure,
    ObjectSizeMeasure,
    BoundaryMeasure,
    ContextAccuracyMeasure,
)
