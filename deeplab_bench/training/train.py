"""Training one model: SGD with the poly policy, resumable, bit-identical from its seed.

``torchrun`` spreads a run over several processes, a GPU each: every batch is shared out, and batch
normalisation, loss and schedule are those of the whole batch.
"""

import fcntl
import hashlib
import io
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from deeplab_bench.data.batches import normalise, training_batches
from deeplab_bench.data.packed import data_sha256, load_split
from deeplab_bench.errors import UserError
from deeplab_bench.models import build_model
from deeplab_bench.models.layers import upsample_logits
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.models.weights import initialise
from deeplab_bench.results.provenance import environment, run_code_sha256, settings_sha256
from deeplab_bench.runtime import distributed
from deeplab_bench.runtime.device import default_workers, make_deterministic, pick_device
from deeplab_bench.settings.schema import Experiment
from deeplab_bench.settings.training import Training
from deeplab_bench.training.loss import class_weights, segmentation_loss, subsample
from deeplab_bench.training.pretrained import load_weights, weights_sha256
from deeplab_bench.writing import write_json

SNAPSHOT_SECONDS = 120
# Of the loss, for which a GPU has to be waited for, and of the time for a snapshot.
LOOK_EVERY = 20
HISTORY_POINTS = 100


class TrainingError(UserError):
    """Training cannot go on; the message says why and what to do."""


def train(
    experiment: Experiment,
    seed: int,
    data_folder: Path,
    checkpoint: Path,
    workers: int | None = None,
) -> None:
    """Train a model and write its ``checkpoint``, with the run's timing beside it.

    An interrupted run goes on from its last snapshot, to the same result as one that was not.

    Raises:
        DataError: the data have not been prepared.
        TrainingError: the loss is no longer finite, or the same run is under way elsewhere.
    """
    split = load_split(data_folder, "train")
    provenance = training_provenance(experiment, seed, data_folder)
    device = pick_device()
    make_deterministic(seed)
    if workers is None:
        workers = default_workers(device)
    title = f"training {experiment.model} ({experiment.profile}, seed {seed})"
    history: dict[str, list[float]] = {"iteration": [], "loss": []}
    seconds = 0.0
    first = distributed.rank() == 0
    with locked(checkpoint) if first else nullcontext():
        model = initial_model(experiment, split.classes)
        if not first:
            torch.manual_seed(seed_of_process(seed))
        for number, phase in enumerate(experiment.phases, start=1):
            training = phase.training
            if number > 1:
                model = rebuilt(model, experiment.architecture, phase.arguments, split.classes)
            model = model.to(device).to(memory_format=torch.channels_last)
            weights = class_weights(split, training.class_balancing)
            trainer = Trainer(model, training, device, weights)
            snapshot = checkpoint.with_name(
                f"{checkpoint.stem}.{digest_of(provenance)}.{number}.snapshot"
            )
            trainer.resume(snapshot)
            batches = training_batches(
                split,
                training,
                seed,
                device=device,
                first_iteration=trainer.iteration,
                workers=workers,
                rank=distributed.rank(),
                processes=distributed.processes(),
            )
            trainer.run(batches, snapshot, title)
            if phase is not experiment.phases[-1]:
                trainer.save(snapshot)
            append(history, trainer.history())
            seconds += trainer.seconds
        if first:
            content = {
                "model": model.state_dict(),
                "provenance": provenance,
                "history": history,
                "classes": split.classes,
            }
            write_atomically(checkpoint, content)
            timing = {
                "training_seconds": round(seconds, 2),
                "environment": environment(device) | {"processes": distributed.processes()},
            }
            write_json(timing_beside(checkpoint), timing)
            for left in checkpoint.parent.glob(f"{checkpoint.stem}.*.snapshot"):
                left.unlink()


def seed_of_process(seed: int) -> int:
    """For what is drawn while training, as by dropout: another in every process."""
    return int(np.random.SeedSequence((seed, distributed.rank())).generate_state(1)[0])


def initial_model(experiment: Experiment, classes: Sequence[str]) -> Segmenter:
    """The network at the start of the first phase, pretrained if the settings say so."""
    model = build_model(experiment.architecture, experiment.arguments, num_classes=len(classes))
    weights = experiment.training.weights
    if weights != "none":
        try:
            initialise(model, load_weights(weights, experiment.arguments["backbone"]))
        except ValueError as error:
            raise TrainingError(
                f"training.weights {weights} of models.{experiment.model}: {error}"
            ) from None
    return model


def rebuilt(
    model: Segmenter, architecture: str, arguments: Mapping[str, Any], classes: Sequence[str]
) -> Segmenter:
    """The same weights in a network of other arguments, as another output stride."""
    other = build_model(architecture, arguments, num_classes=len(classes))
    other.load_state_dict(model.state_dict())
    return other


def append(history: dict[str, list[float]], further: dict[str, list[float]]) -> None:
    """Add the history of the next phase; iterations go on counting."""
    done = history["iteration"][-1] if history["iteration"] else 0
    history["iteration"] += [done + iteration for iteration in further["iteration"]]
    history["loss"] += further["loss"]


def timing_beside(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".timing.json")


def training_timing(checkpoint: Path) -> Any:
    """How long a checkpoint's training took, on what.

    Raises:
        TrainingError: it was not written down.
    """
    path = timing_beside(checkpoint)
    if not path.is_file():
        raise TrainingError(f"{path} is missing: run `dvc repro`")
    return json.loads(path.read_text(encoding="utf-8"))


def training_provenance(experiment: Experiment, seed: int, data_folder: Path) -> dict[str, str]:
    """Digests of all that makes a checkpoint what it is."""
    return {
        "settings_sha256": settings_sha256(experiment, seed),
        "code_sha256": run_code_sha256(__name__, experiment.architecture),
        "data_sha256": data_sha256(data_folder),
    } | weights_provenance(experiment)


def weights_provenance(experiment: Experiment) -> dict[str, str]:
    weights, backbone = experiment.training.weights, experiment.arguments.get("backbone", "")
    digest = weights_sha256(weights, backbone)
    return {} if digest is None else {"weights_sha256": digest}


class TrainingLoss(nn.Module):
    """From a batch to its loss: all that a step differentiates, and may compile."""

    def __init__(self, model: Segmenter, training: Training, class_weights: Tensor | None) -> None:
        super().__init__()
        self.model, self.settings, self.class_weights = model, training, class_weights

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images uint8 (N, 3, H, W) and labels uint8 (N, H, W) to the weighted sum of losses."""
        autocast = self.settings.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            outputs = self.model.training_scores(normalise(images))
        losses = [weight * self.loss(scores, labels.long()) for weight, scores in outputs]
        return torch.stack(losses).sum()

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        if self.settings.loss_resolution == "image":
            logits = upsample_logits(scores, labels)
        else:
            logits, labels = scores.float(), subsample(labels, scores.shape[-2:])
        return segmentation_loss(logits, labels, self.class_weights)


class Trainer:
    """The state of a run, step by step; what is in ``state`` is all of it."""

    def __init__(
        self,
        model: Segmenter,
        training: Training,
        device: torch.device,
        class_weights: Tensor | None = None,
    ) -> None:
        self.model, self.training, self.device = model.train(), training, device
        set_batch_norm(model, training)
        weights = None if class_weights is None else class_weights.to(device)
        loss = distributed.replicated(TrainingLoss(model, training, weights))
        self.training_loss = torch.compile(loss) if training.compile else loss
        self.optimizer = torch.optim.SGD(
            parameter_groups(model, training),
            lr=training.base_lr,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            fused=True,
        )
        self.schedule = lr_schedule(self.optimizer, training)
        self.losses = torch.zeros(training.iterations, device=device)
        self.iteration = 0
        self.seconds = 0.0

    def run(self, batches: Iterable[tuple[Tensor, Tensor]], snapshot: Path, title: str) -> None:
        started = saved = time.monotonic()
        before = self.seconds
        bar = tqdm(
            batches,
            desc=title,
            unit="step",
            initial=self.iteration,
            total=self.training.iterations,
            disable=distributed.rank() > 0,
        )
        for images, labels in bar:
            self.step(images, labels)
            if self.iteration % LOOK_EVERY:
                continue
            self.require_finite_loss()
            bar.set_postfix(loss=f"{self.last_loss():.3f}")
            self.seconds = before + time.monotonic() - started
            if distributed.of_the_first(time.monotonic() - saved > SNAPSHOT_SECONDS):
                self.save(snapshot)
                saved = time.monotonic()
        self.require_finite_loss()
        self.seconds = before + time.monotonic() - started

    def step(self, images: Tensor, labels: Tensor) -> None:
        images, labels = (x.to(self.device, non_blocking=True) for x in (images, labels))
        loss = self.training_loss(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.losses[self.iteration] = distributed.mean(loss.detach())
        self.iteration += 1

    def last_loss(self) -> float:
        return self.losses[self.iteration - 1].item()

    def require_finite_loss(self) -> None:
        if not math.isfinite(self.last_loss()):
            raise TrainingError(
                f"the loss is {self.last_loss()} after {self.iteration} iterations: "
                f"lower training.base_lr, now {self.training.base_lr}"
            )

    def save(self, snapshot: Path) -> None:
        state = self.state()
        if distributed.rank() == 0:
            write_atomically(snapshot, state)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "losses": self.losses,
            "iteration": self.iteration,
            "seconds": self.seconds,
            "random": distributed.gathered(random_state(self.device)),
        }

    def resume(self, snapshot: Path) -> None:
        """Take up the state in ``snapshot``, if there is one."""
        if not snapshot.is_file():
            return
        state = torch.load(snapshot, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.losses, self.iteration = state["losses"], state["iteration"]
        self.seconds = state["seconds"]
        set_random_state(state["random"][distributed.rank() % len(state["random"])])

    def history(self) -> dict[str, list[float]]:
        """The loss, its mean over each of about ``HISTORY_POINTS`` stretches of iterations.

        None where that is not finite, as where the loss was infinite once and recovered.
        """
        losses = self.losses.cpu()
        stretches = losses.split(max(1, math.ceil(len(losses) / HISTORY_POINTS)))
        ends = torch.tensor([len(stretch) for stretch in stretches]).cumsum(0)
        means = torch.stack([stretch.mean() for stretch in stretches])
        losses_or_none = [round(x, 5) if math.isfinite(x) else None for x in means.tolist()]
        return {"iteration": ends.tolist(), "loss": losses_or_none}


def set_batch_norm(model: nn.Module, training: Training) -> None:
    """Its momentum or, frozen, neither statistics nor weights that change."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = training.batch_norm_momentum
            if training.batch_norm == "frozen":
                module.eval().requires_grad_(False)
    if training.batch_norm == "train":
        distributed.synchronise_batch_norm(model)


def random_state(device: torch.device) -> list[Tensor]:
    """Of the CPU and, if there is one, of the GPU."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state()] if device.type == "cuda" else states


def set_random_state(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0].cpu())
    for state in states[1:]:
        torch.cuda.set_rng_state(state.cpu())


def parameter_groups(model: Segmenter, training: Training) -> list[dict[str, Any]]:
    """All that trains, in groups of one learning rate."""
    new = {id(parameter) for parameter in model.new_parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    head_lr = training.base_lr * training.head_lr_multiplier
    groups = [
        {"params": [p for p in trained if id(p) not in new], "lr": training.base_lr},
        {"params": [p for p in trained if id(p) in new], "lr": head_lr},
    ]
    return [group for group in groups if group["params"]]


def lr_schedule(
    optimizer: torch.optim.Optimizer, training: Training
) -> torch.optim.lr_scheduler.LRScheduler:
    if training.lr_policy == "poly":
        return torch.optim.lr_scheduler.PolynomialLR(
            optimizer, total_iters=training.iterations, power=training.poly_power
        )
    return torch.optim.lr_scheduler.StepLR(
        optimizer, step_size=training.step_iterations, gamma=training.step_factor
    )


def digest_of(provenance: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(provenance).encode()).hexdigest()[:12]


def write_atomically(path: Path, content: Any) -> None:
    """Save tensors so that a file under this name is always whole, its bytes free of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    buffer = io.BytesIO()
    torch.save(content, buffer)
    partial.write_bytes(buffer.getbuffer())
    partial.replace(path)


@contextmanager
def locked(checkpoint: Path) -> Iterator[None]:
    """Keep a second process off the same checkpoint, as after a killed ``dvc repro``."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with checkpoint.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{checkpoint} is being trained by another process: wait for it or end it"
            ) from None
        yield
