"""Where everything lies, relative to the repository's root, said once."""

from pathlib import Path

from deeplab_bench.data.archives import DOWNLOADS

RESULTS = Path("results")


def download_record(profile: str) -> Path:
    """What ``download`` fetched for a profile."""
    return DOWNLOADS / f"{profile}.json"


def data_folder(profile: str) -> Path:
    """What ``prepare`` writes: ``manifest.json`` and the packed splits."""
    return Path("data") / profile


def checkpoint_file(profile: str, model: str, seed: int) -> Path:
    return Path("checkpoints") / profile / f"{model}-{seed}.pt"


def experiment_file(profile: str, model: str) -> Path:
    """Every setting of a model under a profile, resolved."""
    return RESULTS / profile / "settings" / "models" / f"{model}.json"


def code_file(profile: str, stage: str) -> Path:
    """The digests of the files that a stage is made of."""
    return RESULTS / profile / "settings" / "code" / f"{stage}.json"


def inference_settings_file(profile: str, inference: str) -> Path:
    return RESULTS / profile / "settings" / "inference" / f"{inference}.json"


def crf_settings_file(profile: str) -> Path:
    return RESULTS / profile / "settings" / "crf.json"


def run_file(profile: str, model: str, seed: int) -> Path:
    """The metrics of one run; nothing in it varies between two identical runs."""
    return RESULTS / profile / "runs" / f"{model}-{seed}.json"


def inference_file(profile: str, inference: str, model: str, seed: int) -> Path:
    """The metrics of a run under another way of inference."""
    return RESULTS / profile / "runs" / "inference" / inference / f"{model}-{seed}.json"


def timing_file(profile: str, model: str, seed: int) -> Path:
    """How long a run took, on what."""
    return RESULTS / profile / "timings" / f"{model}-{seed}.json"


def samples_file(profile: str, model: str, seed: int) -> Path:
    """Predicted labels of the first validation images, side by side, as a palette PNG."""
    return RESULTS / profile / "samples" / f"{model}-{seed}.png"


def sample_images_file(profile: str) -> Path:
    return RESULTS / profile / "samples" / "images.png"


def sample_labels_file(profile: str) -> Path:
    return RESULTS / profile / "samples" / "labels.png"


def speed_file(profile: str, hardware: str, model: str) -> Path:
    return RESULTS / profile / "timings" / "speed" / hardware / f"{model}.json"


def receptive_field_file(profile: str, model: str) -> Path:
    return RESULTS / profile / "receptive_field" / f"{model}.json"


def receptive_field_maps_file(profile: str, model: str) -> Path:
    """Gradients with respect to the image, before and after training, side by side."""
    return RESULTS / profile / "samples" / "receptive_field" / f"{model}.png"


def steps_file(device: str) -> Path:
    """How long a training step of each model takes on a device of this name."""
    return RESULTS / "steps" / f"{device}.json"


# Within folders that the report depends on anyway: DVC refuses to depend on a folder that is not
# there, as that of a stage that `run` leaves without a model.
def crf_file(profile: str, model: str, seed: int) -> Path:
    """What the CRF makes of one run."""
    return RESULTS / profile / "runs" / "crf" / f"{model}-{seed}.json"


def audit_file(profile: str, model: str, seed: int) -> Path:
    """One run's scores by the rules of ``deeplab_bench.evaluation.protocol_audit``."""
    return RESULTS / profile / "runs" / "audit" / f"{model}-{seed}.json"


def crf_timing_file(profile: str, model: str, seed: int) -> Path:
    return RESULTS / profile / "timings" / "crf" / f"{model}-{seed}.json"


def crf_samples_files(profile: str, model: str, seed: int) -> dict[str, Path]:
    """Of the first validation images, by what they show: labels, scores and beliefs."""
    folder = RESULTS / profile / "samples" / "crf"
    return {what: folder / f"{model}-{seed}.{what}.png" for what in ("labels", "scores", "beliefs")}
