"""Fingerprints of a training: digests of its weights on the way, by which two trainings compare.

A checkpoint is not in git, its fingerprints are. They tell in which iteration and layer another
training of the same run departed.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

FINGERPRINT_POINTS = 24
# The first iterations whose weights have a fingerprint each; 0 are the initial weights.
FIRST_POINTS = 3
LOSS_POINTS = 250
# The first iterations whose losses are all kept.
FIRST_LOSSES = 20
# Hexadecimal digits of the digest of all weights, and of one layer's.
ALL_DIGITS, LAYER_DIGITS = 16, 4


def list_points(iterations: int, count: int, first: int) -> list[int]:
    """List the ``first`` iterations, about ``count`` at equal distances, and the last one."""
    every = math.ceil(iterations / count)
    spread = range(every, iterations + 1, every)
    return sorted({*range(1, min(first, iterations) + 1), *spread, iterations})


def list_fingerprint_points(iterations: int) -> set[int]:
    """List the numbers of iterations after which the weights get a fingerprint, 0 included."""
    return {0, *list_points(iterations, FINGERPRINT_POINTS, FIRST_POINTS)}


def compute_fingerprint(model: nn.Module) -> dict[str, str]:
    """Compute digests of the weights.

    Returns:
        ``weights``, of all parameters and buffers; ``parameters``, of the parameters of every layer
        that ``describe_layers`` lists, one after the other; ``statistics``, of the buffers of every
        layer that ``list_statistics`` lists, which only the forward pass changes.
    """
    parameters = [_digest(module.named_parameters(recurse=False)) for module in _layers(model)]
    statistics = [_digest(module.named_buffers(recurse=False)) for module in _counting(model)]
    every = hashlib.sha256("".join(parameters + statistics).encode()).hexdigest()
    return {
        "weights": every[:ALL_DIGITS],
        "parameters": "".join(digest[:LAYER_DIGITS] for digest in parameters),
        "statistics": "".join(digest[:LAYER_DIGITS] for digest in statistics),
    }


def describe_layers(model: nn.Module) -> dict[str, str]:
    """Describe every layer with parameters, by name, in the order of their definition."""
    names = {module: name for name, module in model.named_modules()}
    return {names[module]: describe_layer(module) for module in _layers(model)}


def describe_layer(module: nn.Module) -> str:
    """Describe a layer by its kind and kernel, for example ``Conv2d 3x3, rate 2``."""
    kind = type(module).__name__
    if not isinstance(module, nn.Conv2d):
        return kind
    height, width = module.kernel_size
    (stride, _), (rate, _) = module.stride, module.dilation
    further = [f"{name} {n}" for name, n in (("stride", stride), ("rate", rate)) if n != 1]
    return ", ".join([f"{kind} {height}x{width}", *further])


def list_statistics(model: nn.Module) -> list[str]:
    """List the layers with statistics of the forward pass, such as batch normalisation."""
    names = {module: name for name, module in model.named_modules()}
    return [names[module] for module in _counting(model)]


def select_losses(losses: Tensor) -> dict[int, float | None]:
    """Select the losses of about ``LOSS_POINTS`` iterations, and those of the first ones.

    Nine digits are enough for every float32. A loss that is not finite is None.
    """
    iterations = list_points(len(losses), LOSS_POINTS, FIRST_LOSSES)
    values = {iteration: losses[iteration - 1].item() for iteration in iterations}
    return {i: float(f"{v:.9g}") if math.isfinite(v) else None for i, v in values.items()}


def join_phases(
    model: nn.Module,
    phases: Sequence[tuple[Mapping[int, float | None], Mapping[int, dict[str, str]]]],
) -> dict[str, Any]:
    """Join losses and fingerprints of all phases into the content of a ``FingerprintRecord``.

    The iterations of a phase continue the count.
    """
    joined: dict[str, Any] = {
        "layers": describe_layers(model),
        "statistics": list_statistics(model),
        "losses": {},
        "points": {},
    }
    done = 0
    for losses, points in phases:
        joined["losses"] |= {str(done + iteration): loss for iteration, loss in losses.items()}
        joined["points"] |= {str(done + iteration): point for iteration, point in points.items()}
        done += max(losses)
    return joined


def _layers(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]


def _counting(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if next(m.buffers(recurse=False), None) is not None]


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Compute the digest of tensors and their names, whatever the order of their memory."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
