"""The stages of dvc.yaml: their purpose and how they may run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage and its script, ``pipelines/<name>.py``.

    ``network``: the stage computes with a network, on a GPU if there is one. ``distributed``: the
    stage may run under ``torchrun``. ``resumes``: a run that was ended goes on from where it was.
    ``cold``: the stage measures the machine. It has the machine for itself, and needs a process of
    its own that is not pinned.
    """

    name: str
    help: str
    network: bool = False
    distributed: bool = False
    resumes: bool = False
    cold: bool = False


STAGES = {
    stage.name: stage
    for stage in (
        Stage("resolve", "resolve the settings of every stage of a profile"),
        Stage("download", "fetch and verify a profile's archives"),
        Stage("prepare", "generate or convert a profile's data, check and pack them"),
        Stage(
            "pretrain",
            "pretrain a profile's backbone on images of single objects",
            network=True,
            resumes=True,
        ),
        Stage(
            "train", "train one model from one seed", network=True, distributed=True, resumes=True
        ),
        Stage(
            "evaluate",
            "score a checkpoint under one way of inference",
            network=True,
            distributed=True,
        ),
        Stage("crf", "refine a checkpoint's predictions by the fully connected CRF", network=True),
        Stage(
            "audit",
            "rescore a checkpoint with the scoring variants of published code",
            network=True,
        ),
        Stage("label_files", "score label files that another program predicted"),
        Stage("receptive_field", "measure a model's receptive field", network=True),
        # Cold, because it measures memory: nothing else may use memory in its process.
        Stage("speed", "time one model on one machine", network=True, cold=True),
        Stage("report", "write a profile's tables, figures and page"),
    )
}
