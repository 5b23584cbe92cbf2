"""The training loop: loss, optimiser, schedule, and the state stored in a snapshot."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from deeplab_bench.errors import UserError
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.runtime import distributed
from deeplab_bench.runtime.device import computes_bfloat16
from deeplab_bench.settings.training import Training
from deeplab_bench.training.fingerprints import (
    compute_fingerprint,
    list_fingerprint_points,
)
from deeplab_bench.training.loss import segmentation_loss, subsample

# Steps between two checks of the loss on a GPU, for whose loss the CPU must wait.
LOOK_EVERY = 20
HISTORY_POINTS = 100
# The iterations whose mean loss tells how a training began.
START_ITERATIONS = 10


class TrainingError(UserError):
    """Training cannot go on; the message says why and what to do."""


class TrainingLoss(nn.Module):
    """A network together with its loss, as one module that ``torch.compile`` can compile."""

    def __init__(self, model: Segmenter, training: Training, class_weights: Tensor | None) -> None:
        super().__init__()
        self.model, self.settings, self.class_weights = model, training, class_weights

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss from images uint8 (N, 3, H, W) and labels uint8 (N, H, W).

        Returns:
            The sum of the network's weighted losses, and their mean, which has no gradient.
        """
        autocast = self.settings.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            outputs = self.model.training_logits(self.model.colours.normalise(images))
        losses = [weight * self.loss(logits, labels.long()) for weight, logits in outputs]
        total = torch.stack(losses).sum()
        return total, total.detach() / sum(weight for weight, _ in outputs)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.settings.loss_resolution == "image":
            logits = self.model.grid.upsample(logits, labels.shape[-2:])
        else:
            labels = subsample(labels, logits.shape[-2:], self.model.grid)
            logits = logits.float()
        return segmentation_loss(logits, labels, self.class_weights)


class Trainer:
    """The training loop of one phase. ``state`` returns everything that a snapshot must hold."""

    def __init__(
        self,
        model: Segmenter,
        training: Training,
        device: torch.device,
        class_weights: Tensor | None = None,
    ) -> None:
        require_precision(training, device)
        self.model, self.training, self.device = model.train(), training, device
        set_batch_norm(model, training)
        weights = None if class_weights is None else class_weights.to(device)
        loss = distributed.wrap_data_parallel(TrainingLoss(model, training, weights))
        self.training_loss = torch.compile(loss) if training.compile else loss
        self.optimizer = torch.optim.SGD(
            build_parameter_groups(model, training),
            lr=training.base_lr,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            fused=True,
        )
        self.schedule = LambdaLR(self.optimizer, partial(compute_lr_factor, training))
        self.losses = torch.zeros(training.iterations, device=device)
        self.fingerprints: dict[int, dict[str, str]] = {}
        self.iteration = 0
        self.seconds = 0.0

    def run(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        watch: Callable[["Trainer"], None] = lambda trainer: None,
    ) -> None:
        """Train on ``batches``. Every few steps, ``watch`` is called, while the loss is finite.

        Raises:
            TrainingError: the loss is not finite.
        """
        started, before = time.monotonic(), self.seconds
        points = list_fingerprint_points(self.training.iterations)
        look_every = 1 if self.device.type == "cpu" else LOOK_EVERY
        if self.iteration == 0:
            self.take_fingerprint()
        for images, labels in batches:
            self.step(images, labels)
            if self.iteration in points:
                self.take_fingerprint()
            if self.iteration % look_every and self.iteration < self.training.iterations:
                continue
            self.require_finite_losses()
            self.seconds = before + time.monotonic() - started
            watch(self)

    def step(self, images: Tensor, labels: Tensor) -> None:
        images, labels = (x.to(self.device, non_blocking=True) for x in (images, labels))
        loss, mean_loss = self.training_loss(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.losses[self.iteration] = distributed.all_reduce_mean(mean_loss)
        self.iteration += 1

    def take_fingerprint(self) -> None:
        if distributed.rank() == 0:
            self.fingerprints[self.iteration] = compute_fingerprint(self.model)

    def last_loss(self) -> float:
        return self.losses[self.iteration - 1].item()

    def require_finite_losses(self) -> None:
        """Raise a ``TrainingError`` that names the first iteration whose loss is not finite."""
        losses = self.losses[: self.iteration].cpu()
        diverged = (~losses.isfinite()).nonzero()
        if len(diverged):
            first = int(diverged[0])
            lr = self.training.base_lr * compute_lr_factor(self.training, first)
            raise TrainingError(
                f"the loss is {losses[first].item()} in iteration {first + 1}, where the learning "
                f"rate is {lr:.3g}: lower training.base_lr, now {self.training.base_lr}, or raise "
                "training.warmup_iterations"
            )

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "losses": self.losses,
            "fingerprints": self.fingerprints,
            "iteration": self.iteration,
            "seconds": self.seconds,
            "random": distributed.all_gather(get_random_state(self.device)),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from the ``state`` of another trainer of the same run."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.losses, self.iteration = state["losses"], state["iteration"]
        self.fingerprints, self.seconds = state["fingerprints"], state["seconds"]
        set_random_state(state["random"][distributed.rank() % len(state["random"])])

    def history(self) -> dict[str, Any]:
        """Return mean losses of at most ``HISTORY_POINTS`` intervals, with their last iterations.

        ``start_loss`` is the mean of the first ``START_ITERATIONS``. Where a network has several
        losses, each iteration counts with their weighted mean, so that models can be compared.
        """
        losses = self.losses.cpu()
        stretches = losses.split(max(1, math.ceil(len(losses) / HISTORY_POINTS)))
        ends = torch.tensor([len(stretch) for stretch in stretches]).cumsum(0)
        means = torch.stack([stretch.mean() for stretch in stretches])
        return {
            "iteration": ends.tolist(),
            "loss": [round(mean, 5) for mean in means.tolist()],
            "start_loss": round(losses[:START_ITERATIONS].mean().item(), 5),
        }


def require_precision(training: Training, device: torch.device) -> None:
    """Refuse bfloat16 on a CPU that only emulates it.

    Raises:
        TrainingError: a step would take up to 100 times as long as in float32.
    """
    if training.precision == "bfloat16" and not computes_bfloat16(device):
        raise TrainingError(
            "training.precision is bfloat16, which this CPU only emulates, up to 100 times slower "
            "than float32: set it to float32, or train on a GPU"
        )


def set_batch_norm(model: nn.Module, training: Training) -> None:
    """Set the momentum of batch normalisation, or freeze its statistics and parameters."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = training.batch_norm_momentum
            if training.batch_norm == "frozen":
                module.eval().requires_grad_(False)
    if training.batch_norm == "train":
        distributed.synchronise_batch_norm(model)


def get_random_state(device: torch.device) -> list[Tensor]:
    """Return the states of the random generators of the CPU and of the GPU, if there is one."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state()] if device.type == "cuda" else states


def set_random_state(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0].cpu())
    for state in states[1:]:
        torch.cuda.set_rng_state(state.cpu())


def build_parameter_groups(model: Segmenter, training: Training) -> list[dict[str, Any]]:
    """Build the optimiser's groups of parameters: one for each learning rate and weight decay."""
    new = {id(parameter) for parameter in model.new_parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in model.modules():
        normalises = isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))
        for name, parameter in module.named_parameters(recurse=False):
            is_bias = name == "bias" and not normalises
            lr = training.base_lr
            lr *= training.head_lr_multiplier if id(parameter) in new else 1
            lr *= training.bias_lr_multiplier if is_bias else 1
            decays = training.decay_norm if normalises else training.decay_bias or not is_bias
            if parameter.requires_grad:
                decay = training.weight_decay if decays else 0.0
                groups.setdefault((lr, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]


def compute_lr_factor(training: Training, iteration: int) -> float:
    """Compute the factor on ``base_lr`` in an iteration, counted from 0."""
    done = iteration - training.warmup_iterations
    if done < 0:
        return (iteration + 1) / (training.warmup_iterations + 1)
    if training.lr_policy == "poly":
        left = 1 - done / (training.iterations - training.warmup_iterations)
        return float(max(0.0, left) ** training.poly_power)
    if training.lr_policy == "step":
        return float(training.step_factor ** (done // training.step_iterations))
    return 1.0
