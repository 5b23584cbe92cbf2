"""The columns that name a row of a table of the report."""

KEYS = {
    "accuracy": ("model",),
    "per_class": ("model",),
    "object_size": ("model",),
    "boundaries": ("model",),
    "context_radius": ("model",),
    "comparisons": ("model", "other"),
    "inference": ("inference", "model"),
    "crf": ("model", "iteration"),
    "protocol_audit": ("model", "variant"),
    "receptive_field": ("model",),
    "speed": ("model", "hardware", "output_stride"),
    "training_speed": ("model", "hardware"),
    "paper": ("model", "other", "paper", "row"),
    "training_curves": ("model", "seed", "iteration"),
    "validation_curves": ("model", "seed", "iteration"),
}
