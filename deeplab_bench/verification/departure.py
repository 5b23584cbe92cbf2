"""Where two trainings of one run part: iteration, pass and layer, as far as fingerprints tell."""

from collections.abc import Collection
from dataclasses import dataclass

from deeplab_bench.results.records import Fingerprint, FingerprintRecord
from deeplab_bench.training.fingerprints import LAYER_DIGITS


@dataclass(frozen=True)
class Departure:
    """Where a training departs from another.

    The first iteration that differs is one of ``first`` to ``last``; 0 are the initial weights.
    ``where`` says what is known of the pass and the layer. ``loss_change`` is the relative
    difference of the first loss that differs, None if all losses are equal or it is not finite.
    """

    first: int
    last: int
    where: str
    loss_change: float | None

    def __str__(self) -> str:
        if self.last == 0:
            when = "initial weights"
        elif self.first == self.last:
            when = f"iteration {self.first}"
        else:
            when = f"iterations {self.first} to {self.last}"
        change = "" if self.loss_change is None else f"; loss off by {self.loss_change:.1e}"
        return f"{when}: {self.where}{change}"


def find_departure(committed: FingerprintRecord, here: FingerprintRecord) -> Departure | None:
    """Find where a training departs from the committed one; None if they are equal.

    A loss belongs to the forward pass of its iteration, and to the weights before it. So the losses
    narrow down the iteration between two fingerprints.
    """
    equal_loss, other_loss = compare_losses(committed, here)
    change = None if other_loss is None else compute_change(committed, here, other_loss)
    if list(committed.layers) != list(here.layers):
        names = committed.layers.keys() ^ here.layers.keys()
        return Departure(0, 0, f"the networks do not have the same layers: {min(names)}", change)
    before, after = compare_weights(committed, here)
    if after is None and other_loss is None:
        return None
    if after is None or (other_loss is not None and other_loss <= before):
        assert other_loss is not None
        return Departure(max(equal_loss, 1), other_loss, "the loss, not the weights", change)
    if after == 0:
        return Departure(0, 0, name_first(committed, here, 0), change)
    last = after if other_loss is None else min(after, other_loss)
    first = max(before + 1, equal_loss) if equal_loss <= after else before + 1
    if after == before + 1:
        where = locate(committed, here, after, forward=other_loss == after)
    else:
        where = f"{name_pass(first, last, other_loss)}; {count_layers(committed, here, after)}"
    return Departure(first, last, where, change)


def compare_losses(committed: FingerprintRecord, here: FingerprintRecord) -> tuple[int, int | None]:
    """Return the last iteration of equal losses before the first that differs, and the latter."""
    equal = 0
    for iteration in sorted(committed.losses.keys() & here.losses.keys()):
        if committed.losses[iteration] != here.losses[iteration]:
            return equal, iteration
        equal = iteration
    return equal, None


def compare_weights(
    committed: FingerprintRecord, here: FingerprintRecord
) -> tuple[int, int | None]:
    """Return the last point with equal weights before the first that differs, and the latter."""
    equal = 0
    for iteration in sorted(committed.points.keys() & here.points.keys()):
        if committed.points[iteration].weights != here.points[iteration].weights:
            return equal, iteration
        equal = iteration
    return equal, None


def compute_change(
    committed: FingerprintRecord, here: FingerprintRecord, iteration: int
) -> float | None:
    """Compute the relative difference of two losses."""
    one, other = committed.losses[iteration], here.losses[iteration]
    return None if not one or other is None else abs(other - one) / abs(one)


def locate(
    committed: FingerprintRecord, here: FingerprintRecord, iteration: int, *, forward: bool
) -> str:
    """Say the pass and the layer, from the weights right before and after an iteration.

    The forward pass changes the statistics of batch normalisation. The backward pass changes the
    parameters, those of the last layer first. ``forward``: the loss of the iteration differs.
    """
    statistics = list_changed(
        committed.points[iteration].statistics,
        here.points[iteration].statistics,
        committed.statistics,
    )
    if statistics:
        return f"forward pass, first seen in {describe(committed, statistics[0])}"
    if forward:
        return "forward pass, seen in the loss"
    parameters = list_changed_layers(committed, here, iteration)
    return f"backward pass or optimiser, first seen in {describe(committed, parameters[-1])}"


def describe(record: FingerprintRecord, layer: str) -> str:
    """Describe a layer by name and kind; for one without kernel also the layer before it."""
    names = list(record.layers)
    kind = record.layers.get(layer, "no parameters")
    text = f"{layer} ({kind})"
    index = names.index(layer) if layer in names else 0
    if layer in record.statistics and index > 0:
        previous = names[index - 1]
        return f"{text} after {previous} ({record.layers[previous]})"
    return text


def name_first(committed: FingerprintRecord, here: FingerprintRecord, iteration: int) -> str:
    changed = list_changed_layers(committed, here, iteration)
    return f"first {describe(committed, changed[0])}" if changed else "the statistics"


def name_pass(first: int, last: int, other_loss: int | None) -> str:
    if first == last:
        return "forward pass" if other_loss == last else "backward pass or optimiser"
    if first == last - 1 and other_loss == last:
        return f"backward pass or optimiser of {first}, or forward pass of {last}"
    return "the pass cannot be told"


def count_layers(committed: FingerprintRecord, here: FingerprintRecord, iteration: int) -> str:
    changed = list_changed_layers(committed, here, iteration)
    text = f"after iteration {iteration}, {len(changed)} of {len(committed.layers)} layers differ"
    return text if len(changed) == len(committed.layers) else f"{text}, {changed[0]} first"


def list_changed_layers(
    committed: FingerprintRecord, here: FingerprintRecord, iteration: int
) -> list[str]:
    points: tuple[Fingerprint, Fingerprint] = committed.points[iteration], here.points[iteration]
    one, other = (point.parameters for point in points)
    return list_changed(one, other, committed.layers)


def list_changed(one: str, other: str, names: Collection[str]) -> list[str]:
    """List the layers whose digests differ."""
    starts = range(0, len(names) * LAYER_DIGITS, LAYER_DIGITS)
    return [
        name
        for name, start in zip(names, starts, strict=True)
        if one[start : start + LAYER_DIGITS] != other[start : start + LAYER_DIGITS]
    ]
