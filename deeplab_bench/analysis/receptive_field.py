"""The theoretical receptive field: the pixels of the image that an output can depend on.

A network is run on tensors without values, and through each operation that it calls are carried,
for every position along an axis of a map, the first and the last pixel that the position sees. It
is exact at borders, too, where taps fall on padding. Away from them it is the recurrence of Araujo,
Norris and Sim (Computing Receptive Fields of Convolutional Neural Networks, Distill 2019), of
parallel branches the union.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from deeplab_bench.errors import UserError
from deeplab_bench.models.layers import averaging_matrix

Network = Callable[[Tensor], Tensor]
Pair = int | tuple[int, int]

# Of two squares in which a field is looked for; no network of params.yaml sees as much of one.
SIDES = (1 << 14, 1 << 15)
BEYOND = np.iinfo(np.int64).max

Axis = Literal[-2, -1]


class ReceptiveFieldError(UserError):
    """A network calls an operation whose receptive field is not known; the message names it."""


class ReceptiveField(NamedTuple):
    """In pixels along an axis, by the names of Araujo et al.

    ``stride`` parts the positions of the map, ``padding`` is how far the field of the first
    reaches beyond the image, ``centre`` where its middle lies. Where maps are resized, fields
    differ from position to position: ``size`` and ``padding`` are the largest, ``centre`` is the
    mean. All but the stride are None where the field grows with the image, as under global pooling.
    """

    size: int | None
    stride: int
    padding: int | None = None
    centre: float | None = None


@dataclass(frozen=True)
class Span:
    """For every position along one axis the first and the last pixel seen, inclusive, (n,)."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, positions: slice) -> "Span":
        return Span(self.first[positions], self.last[positions])

    def seen_by(self, used: NDArray[np.bool_], taps: Any = ...) -> "Span":
        """The union over the ``taps`` (m, k) of each of m positions, where they are ``used``."""
        first = np.where(used, self.first[taps], BEYOND).min(axis=1)
        return Span(first, np.where(used, self.last[taps], -1).max(axis=1))

    def spread(self, size: int) -> "Span":
        return Span(np.broadcast_to(self.first, size), np.broadcast_to(self.last, size))


@dataclass(frozen=True)
class Field:
    rows: Span
    columns: Span

    def along(self, axis: Axis, change: Callable[[Span], Span]) -> "Field":
        """This field, of which one axis is another."""
        if axis == -2:
            return Field(change(self.rows), self.columns)
        return Field(self.rows, change(self.columns))


def theoretical_field(network: Network) -> ReceptiveField:
    """Of a position of the map that ``network`` makes of images (N, 3, H, W) on torch's ``meta``.

    Raises:
        ReceptiveFieldError: the network calls an operation that is not known.
    """
    smaller, larger = (seen_pixels(network, side, side).rows for side in SIDES)
    count = len(larger)
    stride, size = SIDES[-1] // count, largest_size(larger)
    if size != largest_size(smaller):
        return ReceptiveField(None, stride)
    away_from_borders = slice(count // 4, -count // 4)
    position = stride * np.arange(count)[away_from_borders]
    first, last = larger.first[away_from_borders], larger.last[away_from_borders]
    centre = float(((first + last) / 2 - position).mean())
    return ReceptiveField(size, stride, int((position - first).max()), centre)


def largest_size(span: Span) -> int:
    return int((span.last - span.first).max()) + 1


def seen_pixels(network: Network, height: int, width: int) -> Field:
    """What every position of the network's map sees of an image of this size.

    Raises:
        ReceptiveFieldError: the network calls an operation that is not known.
    """
    images = torch.empty(1, 3, height, width, device="meta")
    with torch.no_grad(), Tracing() as tracing:
        tracing.fields[images] = Field(*(Span(n, n) for n in map(np.arange, (height, width))))
        return tracing.fields[network(images)]


class Tracing(TorchFunctionMode):
    """Keeps what is seen from every tensor that is made of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.fields = WeakIdKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.arange:  # Positions keep their values, of which matrices are made.
            return func(*args, **kwargs | {"device": "cpu"})
        leaves = tree_leaves((args, kwargs))
        if not any(self.traced(x) for x in leaves):
            return func(*args, **kwargs)
        result = func(*tree_map(on_meta, args), **tree_map(on_meta, kwargs))
        if any(isinstance(x, Tensor) for x in tree_leaves(result)):
            args, kwargs = tree_map(self.field_or_itself, (args, kwargs))
            self.fields[result] = field_of(func.__name__, result.shape, args, kwargs)
        return result

    def traced(self, x: Any) -> bool:
        return isinstance(x, Tensor) and x in self.fields

    def field_or_itself(self, x: Any) -> Any:
        return self.fields[x] if self.traced(x) else x


def on_meta(x: Any) -> Any:
    return x.to("meta") if isinstance(x, Tensor) else x


def field_of(name: str, shape: torch.Size, args: Any, kwargs: dict[str, Any]) -> Field:
    """Of the result of an operation, given its arguments with fields in place of what has one.

    One without a rule is taken to keep every position to itself, if it keeps height and width.
    """
    if name in RULES:
        return RULES[name](shape, *args, **kwargs)
    try:
        return position_wise(shape, args, kwargs)
    except ValueError:
        raise ReceptiveFieldError(
            f"the receptive field of torch's {name} is not known: "
            "deeplab_bench.analysis.receptive_field.RULES needs a line for it"
        ) from None


def position_wise(shape: Sequence[int], *operands: Any) -> Field:
    fields = [x for x in tree_leaves(operands) if isinstance(x, Field)]
    return Field(
        union([field.rows.spread(shape[-2]) for field in fields]),
        union([field.columns.spread(shape[-1]) for field in fields]),
    )


def union(spans: Sequence[Span]) -> Span:
    first = np.minimum.reduce([span.first for span in spans])
    return Span(first, np.maximum.reduce([span.last for span in spans]))


def convolution(
    shape: Sequence[int],
    x: Field,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Field:
    rates, kernel = pair(dilation), weight.shape[-2:]
    if isinstance(padding, str):
        total = [rate * (taps - 1) for rate, taps in zip(rates, kernel, strict=True)]
        padding = (total[0] // 2, total[1] // 2) if padding == "same" else 0
    return windows(shape, x, kernel, pair(stride), pair(padding), rates)


def max_pool(
    shape: Sequence[int],
    x: Field,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    **_: bool,
) -> Field:
    kernel = pair(kernel_size)
    return windows(
        shape, x, kernel, kernel if stride is None else pair(stride), pair(padding), pair(dilation)
    )


def windows(shape: Sequence[int], x: Field, *layout: Sequence[int]) -> Field:
    """Of kernels, from their sizes, strides, paddings and rates, (rows, columns) each."""
    rows, columns = zip(*layout, strict=True)
    return Field(window(shape[-2], x.rows, *rows), window(shape[-1], x.columns, *columns))


def window(size: int, span: Span, taps: int, stride: int, padding: int, rate: int) -> Span:
    inputs = np.arange(size)[:, None] * stride - padding + np.arange(taps) * rate
    inside = (inputs >= 0) & (inputs < len(span))
    return span.seen_by(inside, inputs.clip(0, len(span) - 1))


def resized(shape: Sequence[int], x: Field, *_: Any, mode: str, **options: Any) -> Field:
    if mode != "bilinear" or options.get("align_corners"):
        raise ReceptiveFieldError(f"the receptive field of interpolation {mode!r} is not known")
    return Field(neighbours(shape[-2], x.rows), neighbours(shape[-1], x.columns))


def neighbours(size: int, span: Span) -> Span:
    """The positions on either side of a new one, but one alone where it lies on it."""
    count = len(span)
    position, remainder = np.divmod(
        ((2 * np.arange(size) + 1) * count - size).clip(0, None), 2 * size
    )
    both = np.stack([position, (position + 1).clip(None, count - 1)], axis=1)
    return span.seen_by(np.stack([remainder >= 0, remainder > 0], axis=1), both)


def average_pool(shape: Sequence[int], x: Field, *_: Any) -> Field:
    return Field(
        *(
            through(averaging_matrix(cells, len(span), torch.empty(0)), span)
            for cells, span in zip(shape[-2:], (x.rows, x.columns), strict=True)
        )
    )


def product(shape: Sequence[int], left: Field | Tensor, right: Field | Tensor) -> Field:
    """Of a matrix and a map: from the left it mixes rows, from the right columns."""
    if isinstance(left, Tensor) and isinstance(right, Field):
        return right.along(-2, lambda span: through(left, span))
    if isinstance(left, Field) and isinstance(right, Tensor):
        return left.along(-1, lambda span: through(right.T, span))
    raise ReceptiveFieldError("the receptive field of a product of two maps is not known")


def through(matrix: Tensor, span: Span) -> Span:
    return span.seen_by(matrix.numpy() != 0)


def narrowed(shape: Sequence[int], x: Field, dim: int, start: int, length: int) -> Field:
    axis = spatial(dim, len(shape))
    return x if axis is None else x.along(axis, lambda span: span[start : start + length])


def largest(shape: Sequence[int], x: Field, dim: int, keepdim: bool = False) -> Field:
    axis = spatial(dim, len(shape) + (not keepdim))
    if axis is None:
        return position_wise(shape, x)
    return x.along(axis, lambda span: span.seen_by(np.ones((1, len(span)), dtype=bool)))


def joined(shape: Sequence[int], fields: Sequence[Field], dim: int = 0) -> Field:
    axis = spatial(dim, len(shape))
    if axis is None:
        return position_wise(shape, fields)
    spans = [field.rows if axis == -2 else field.columns for field in fields]
    ends = Span(np.concatenate([s.first for s in spans]), np.concatenate([s.last for s in spans]))
    others = union([field.columns if axis == -2 else field.rows for field in fields])
    return Field(ends, others) if axis == -2 else Field(others, ends)


def spatial(dim: int, dims: int) -> Axis | None:
    """The axis of a map that a dimension of a tensor is, if it is one."""
    axes: dict[int, Axis] = {-2: -2, -1: -1}
    return axes.get(dim if dim < 0 else dim - dims)


def pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


RULES: dict[str, Callable[..., Field]] = {
    "conv2d": convolution,
    "max_pool2d": max_pool,
    "adaptive_avg_pool2d": average_pool,
    "interpolate": resized,
    "matmul": product,
    "__matmul__": product,
    "__rmatmul__": product,
    "narrow": narrowed,
    "amax": largest,
    "stack": joined,
    "cat": joined,
}
