"""Command ``submit``: predictions of Pascal VOC's test images, for its evaluation server."""

from typing import Annotated

from deeplab_bench.data.voc2012 import EVALUATION_SERVER
from deeplab_bench.evaluation.checkpoint import open_checkpoint
from deeplab_bench.evaluation.submission import write_submission
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.provenance import derive_provenance
from deeplab_bench.settings.blocks import require_known
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.settings.loading import load_params


def main(
    model: Annotated[str, "the trained model"],
    *,
    images: Annotated[str, "the VOCdevkit that VOC's test archive is extracted to"] = "",
    seed: Annotated[int, "the seed of its run"] = 0,
    profile: Annotated[str, "the profile of its run"] = "voc2012",
    inference: Annotated[str, "the way of inference"] = PLAIN,
    crf: Annotated[bool, "refine the predictions by the fully connected CRF"] = False,
) -> None:
    """
    Raises:
        CheckpointError: the run is not trained, or was made from other settings or data.
        DataError: the test images are not there.
        ParamsError: params.yaml does not define one of the names.
        SubmissionError: the predictions are not fit for the server.
    """
    params = load_params()
    require_known(profile, params.profile, "--profile")
    require_known(model, params.networks, "MODEL")
    require_known(inference, params.inference, "--inference")
    refinement = params.crf(profile) if crf else None
    experiment, data_folder = params.experiment(profile, model), ProfileFiles(profile).data
    files = RunFiles(profile, model, seed)
    expected = derive_provenance(experiment, seed, data_folder)
    checkpoint = open_checkpoint(files.checkpoint, expected)
    path = files.submission(inference, crf)
    write_submission(
        path,
        experiment,
        seed,
        params.inference[inference],
        refinement,
        checkpoint,
        images,
        data_folder,
    )
    print(f"{path}: upload it at {EVALUATION_SERVER}, as comp6")
