"""Paths of all files, relative to the repository's root.

This file is not part of any digest of code: the path of a result does not change the result.
"""

from dataclasses import dataclass
from pathlib import Path

RESULTS = Path("results")
CHECKPOINTS = Path("checkpoints")


@dataclass(frozen=True)
class ProfileFiles:
    """The files that belong to a profile as a whole, or to one of its models."""

    profile: str

    @property
    def folder(self) -> Path:
        return RESULTS / self.profile

    @property
    def data(self) -> Path:
        """The folder with ``manifest.json`` and the packed splits."""
        return Path("data") / self.profile

    @property
    def download_record(self) -> Path:
        from deeplab_bench.data.archives import DOWNLOADS  # imports requests, which takes time

        return DOWNLOADS / f"{self.profile}.json"

    def settings(self, stage: str, *names: str) -> Path:
        """Return the file with a stage's settings and the digest of its code."""
        *folders, name = (stage, *names)
        return self.folder.joinpath("settings", *folders, f"{name}.json")

    @property
    def process_settings(self) -> Path:
        """Return the file that ``runtime.pins`` reads before numpy and torch are imported."""
        return self.folder / "settings" / "process.json"

    @property
    def pretrained(self) -> Path:
        """The state dict of the pretrained classification network; empty if there is none."""
        return CHECKPOINTS / self.profile / "pretrained.pt"

    @property
    def pretraining(self) -> Path:
        return self.folder / "runs" / "pretrain.json"

    @property
    def pretraining_timing(self) -> Path:
        return self.folder / "timings" / "pretrain.json"

    def label_folder(self, model: str) -> Path:
        """Return the link to the folder with the label files that another program predicted."""
        return Path("data") / "label_files" / self.profile / model

    def label_files(self, model: str) -> Path:
        """Return the file with the scores of these label files."""
        return self.folder / "runs" / "label_files" / f"{model}.json"

    @property
    def sample_images(self) -> Path:
        return self.folder / "samples" / "images.png"

    @property
    def sample_labels(self) -> Path:
        return self.folder / "samples" / "labels.png"

    def receptive_field(self, model: str) -> Path:
        return self.folder / "runs" / "receptive_field" / f"{model}.json"

    def receptive_field_maps(self, model: str) -> Path:
        """Return the picture of the gradients before and after training, side by side."""
        return self.folder / "samples" / "receptive_field" / f"{model}.png"

    def speed(self, hardware: str, model: str) -> Path:
        return self.folder / "timings" / "speed" / hardware / f"{model}.json"


@dataclass(frozen=True)
class RunFiles:
    """The files of one run: a model of a profile, trained from one seed."""

    profile: str
    model: str
    seed: int

    @classmethod
    def find(cls, checkpoint: Path) -> "RunFiles | None":
        """Find the run that has this checkpoint; None if it is not of a run of a profile."""
        model, _, seed = checkpoint.stem.rpartition("-")
        run = cls(checkpoint.parent.name, model, int(seed)) if seed.isdecimal() else None
        return run if run is not None and run.checkpoint == checkpoint else None

    @property
    def name(self) -> str:
        return f"{self.model}-{self.seed}"

    @property
    def checkpoint(self) -> Path:
        return CHECKPOINTS / self.profile / f"{self.name}.pt"

    @property
    def fingerprints(self) -> Path:
        """Return the file with the digests of the weights on the way of the training."""
        return self._result("fingerprints")

    @property
    def curve(self) -> Path:
        """Return the file with the validation curve of the training."""
        return self._result("runs", "train")

    def evaluation(self, inference: str) -> Path:
        """Return the file with the metrics; two identical runs write the same bytes."""
        return self._result("runs", "evaluate", inference)

    def evaluation_timing(self, inference: str) -> Path:
        """Return the file with the times of training and evaluation, and the machine."""
        return self._result("timings", "evaluate", inference)

    def samples(self, inference: str) -> Path:
        """Return the picture of the first predictions, side by side: a palette PNG."""
        return self._result("samples", "evaluate", inference, suffix=".png")

    @property
    def crf(self) -> Path:
        return self._result("runs", "crf")

    @property
    def crf_timing(self) -> Path:
        return self._result("timings", "crf")

    @property
    def crf_samples(self) -> dict[str, Path]:
        """Pictures of the first validation images: labels, scores and beliefs."""
        return {
            what: self._result("samples", "crf", suffix=f".{what}.png")
            for what in ("labels", "scores", "beliefs")
        }

    @property
    def audit(self) -> Path:
        return self._result("runs", "audit")

    def submission(self, inference: str, crf: bool) -> Path:
        """Return the archive for VOC's evaluation server."""
        name = "-".join([self.name, inference, *(["crf"] if crf else [])])
        return Path("submissions") / self.profile / f"{name}.tar.gz"

    def _result(self, *folders: str, suffix: str = ".json") -> Path:
        return RESULTS.joinpath(self.profile, *folders, self.name + suffix)


def get_live_folder(checkpoint: Path, phase: int) -> Path:
    """Return the folder with the curves of a phase of training, while it runs."""
    name = checkpoint.stem if phase == 1 else f"{checkpoint.stem}.phase{phase}"
    return Path("logs") / "live" / checkpoint.parent.name / name


def get_notes_file(profile: str) -> Path:
    """Return the file with the notes on a profile's results, written by hand."""
    return RESULTS / "notes" / f"{profile}.md"


def get_steps_file(device: str) -> Path:
    """Return the file with the training steps timed on the device of this name."""
    return RESULTS / "steps" / f"{device}.json"


def get_tolerance_file(profile: str) -> Path:
    """Return the file with the differences of a profile's runs between two instruction sets."""
    return RESULTS / "tolerances" / f"{profile}.json"
