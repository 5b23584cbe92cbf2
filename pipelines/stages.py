"""The stages of dvc.yaml: their purpose, how they may run, and their order."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage and its script, ``pipelines/<name>.py``.

    ``wave``: the runs of one wave may run in parallel; they need only results of earlier waves.
    A stage without a wave runs alone on the machine. ``distributed``: the stage may run under
    ``torchrun``. ``cold``: the stage measures the machine, and needs a process of its own that
    is not pinned.
    """

    name: str
    help: str
    wave: int | None = None
    distributed: bool = False
    cold: bool = False


STAGES = {
    stage.name: stage
    for stage in (
        Stage("resolve", "resolve the settings of every stage of a profile", wave=0),
        Stage("download", "fetch and verify a profile's archives", wave=1),
        Stage("prepare", "generate or convert a profile's data, check and pack them", wave=2),
        Stage("pretrain", "pretrain a profile's backbone on images of single objects", wave=2),
        Stage("train", "train one model from one seed", wave=3, distributed=True),
        Stage(
            "evaluate", "score a checkpoint under one way of inference", wave=4, distributed=True
        ),
        Stage("crf", "refine a checkpoint's predictions by the fully connected CRF", wave=4),
        Stage("audit", "rescore a checkpoint with the scoring variants of published code", wave=4),
        Stage("receptive_field", "measure a model's receptive field", wave=4),
        # Cold, because it measures memory: nothing else may use memory in its process.
        Stage("speed", "time one model on one machine", cold=True),
        Stage("report", "write a profile's tables, figures and page"),
    )
}
