"""Theoretical receptive field: the pixels of the image on which an output can depend.

The network runs on tensors without values. For every position along each axis of a map, the first
and the last pixel that the position sees are traced through each operation that the network calls.
The result is exact at the image's borders, too, where taps are on padding. Away from borders it
equals the recurrence of Araujo, Norris and Sim (Computing Receptive Fields of Convolutional Neural
Networks, Distill 2019). The field of parallel branches is their union.
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
from deeplab_bench.models.layers import build_averaging_matrix

Network = Callable[[Tensor], Tensor]
Pair = int | tuple[int, int]

# Sides of two square images. A field whose size differs between both grows with the image: all
# other fields of the networks in params.yaml are smaller than these sides. Strides divide the sides
# less 1, so that networks do not pad these images (see ``models.grid``).
SIDES = ((1 << 14) + 1, (1 << 15) + 1)
UNSEEN = np.iinfo(np.int64).max

Axis = Literal[-2, -1]


class ReceptiveFieldError(UserError):
    """A network calls an operation that has no rule here; the message names the operation."""


class ReceptiveField(NamedTuple):
    """A receptive field along one axis, in pixels, with the terms of Araujo et al.

    ``stride`` is the distance between neighbouring positions of the map. ``padding`` is how far the
    field of the first position extends beyond the image, and ``centre`` is the middle of that
    field. If maps are resized, fields differ between positions: ``size`` and ``padding`` are
    maxima, ``centre`` is a mean. If the field grows with the image, as with global pooling, all
    except ``stride`` are None.
    """

    size: int | None
    stride: int
    padding: int | None = None
    centre: float | None = None


@dataclass(frozen=True)
class Span:
    """The first and the last pixel (n,), inclusive, that each of n positions on an axis sees."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, positions: slice) -> "Span":
        return Span(self.first[positions], self.last[positions])

    def unite_taps(self, used: NDArray[np.bool_], taps: Any = ...) -> "Span":
        """Unite the spans of k ``taps`` (m, k) for m positions, where ``used`` (m, k) is true."""
        first = np.where(used, self.first[taps], UNSEEN).min(axis=1)
        return Span(first, np.where(used, self.last[taps], -1).max(axis=1))

    def broadcast(self, size: int) -> "Span":
        return Span(np.broadcast_to(self.first, size), np.broadcast_to(self.last, size))


@dataclass(frozen=True)
class Field:
    """The spans of a map's rows and columns."""

    rows: Span
    columns: Span

    def with_axis(self, axis: Axis, change: Callable[[Span], Span]) -> "Field":
        """Return this field with one axis changed."""
        if axis == -2:
            return Field(change(self.rows), self.columns)
        return Field(self.rows, change(self.columns))


def compute_theoretical_field(network: Network) -> ReceptiveField:
    """Compute the receptive field of a position of the network's output map.

    Args:
        network: maps images (N, 3, H, W) to a map (N, C, h, w), both on the device ``meta``.

    Raises:
        ReceptiveFieldError: the network calls an operation that has no rule.
    """
    smaller, larger = (find_seen_pixels(network, side, side).rows for side in SIDES)
    count = len(larger)
    stride, size = (SIDES[-1] - 1) // (count - 1), compute_largest_size(larger)
    if size != compute_largest_size(smaller):
        return ReceptiveField(None, stride)
    away_from_borders = slice(count // 4, -count // 4)
    position = stride * np.arange(count)[away_from_borders]
    first, last = larger.first[away_from_borders], larger.last[away_from_borders]
    centre = float(((first + last) / 2 - position).mean())
    return ReceptiveField(size, stride, int((position - first).max()), centre)


def compute_largest_size(span: Span) -> int:
    return int((span.last - span.first).max()) + 1


def find_seen_pixels(network: Network, height: int, width: int) -> Field:
    """Find the pixels that every position of the network's map sees in an image of this size.

    Raises:
        ReceptiveFieldError: the network calls an operation that has no rule.
    """
    images = torch.empty(1, 3, height, width, device="meta")
    with torch.no_grad(), Tracing() as tracing:
        tracing.fields[images] = Field(*(Span(n, n) for n in map(np.arange, (height, width))))
        return tracing.fields[network(images)]


class Tracing(TorchFunctionMode):
    """A mode of torch that traces the field of every tensor that is computed from the image."""

    def __init__(self) -> None:
        super().__init__()
        self.fields = WeakIdKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.arange:  # A pooling matrix is made from these, so they need values.
            return func(*args, **kwargs | {"device": "cpu"})
        leaves = tree_leaves((args, kwargs))
        if not any(self.is_traced(x) for x in leaves):
            return func(*args, **kwargs)
        result = func(*tree_map(move_to_meta, args), **tree_map(move_to_meta, kwargs))
        if any(isinstance(x, Tensor) for x in tree_leaves(result)):
            args, kwargs = tree_map(self.replace_by_field, (args, kwargs))
            self.fields[result] = trace_operation(func.__name__, result.shape, args, kwargs)
        return result

    def is_traced(self, x: Any) -> bool:
        return isinstance(x, Tensor) and x in self.fields

    def replace_by_field(self, x: Any) -> Any:
        return self.fields[x] if self.is_traced(x) else x


def move_to_meta(x: Any) -> Any:
    return x.to("meta") if isinstance(x, Tensor) else x


def trace_operation(name: str, shape: torch.Size, args: Any, kwargs: dict[str, Any]) -> Field:
    """Compute the field of an operation's result.

    ``args`` and ``kwargs`` are the operation's arguments, with fields instead of the tensors that
    have one. An operation without a rule is assumed to work on every position alone if it keeps
    height and width.
    """
    if name in RULES:
        return RULES[name](shape, *args, **kwargs)
    try:
        return unite_positions(shape, args, kwargs)
    except ValueError:
        raise ReceptiveFieldError(
            f"the receptive field of torch's {name} is not known: "
            "add a rule to RULES in deeplab_bench/analysis/receptive_field.py"
        ) from None


def unite_positions(shape: Sequence[int], *operands: Any) -> Field:
    fields = [x for x in tree_leaves(operands) if isinstance(x, Field)]
    return Field(
        unite([field.rows.broadcast(shape[-2]) for field in fields]),
        unite([field.columns.broadcast(shape[-1]) for field in fields]),
    )


def unite(spans: Sequence[Span]) -> Span:
    first = np.minimum.reduce([span.first for span in spans])
    return Span(first, np.maximum.reduce([span.last for span in spans]))


def trace_convolution(
    shape: Sequence[int],
    x: Field,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Field:
    rates, kernel = make_pair(dilation), weight.shape[-2:]
    if isinstance(padding, str):
        total = [rate * (taps - 1) for rate, taps in zip(rates, kernel, strict=True)]
        padding = (total[0] // 2, total[1] // 2) if padding == "same" else 0
    return trace_kernel(shape, x, kernel, make_pair(stride), make_pair(padding), rates)


def trace_max_pool(
    shape: Sequence[int],
    x: Field,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    **_: bool,
) -> Field:
    kernel = make_pair(kernel_size)
    return trace_kernel(
        shape,
        x,
        kernel,
        kernel if stride is None else make_pair(stride),
        make_pair(padding),
        make_pair(dilation),
    )


def trace_average_kernel(
    shape: Sequence[int],
    x: Field,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    *_: bool | int | None,
) -> Field:
    return trace_max_pool(shape, x, kernel_size, stride, padding)


def trace_kernel(shape: Sequence[int], x: Field, *layout: Sequence[int]) -> Field:
    """Trace a kernel; ``layout`` is its size, stride, padding and rate, each (rows, columns)."""
    rows, columns = zip(*layout, strict=True)
    return Field(trace_taps(shape[-2], x.rows, *rows), trace_taps(shape[-1], x.columns, *columns))


def trace_taps(size: int, span: Span, taps: int, stride: int, padding: int, rate: int) -> Span:
    """Trace a kernel along one axis; ``size`` is the length of its output."""
    inputs = np.arange(size)[:, None] * stride - padding + np.arange(taps) * rate
    inside = (inputs >= 0) & (inputs < len(span))
    return span.unite_taps(inside, inputs.clip(0, len(span) - 1))


def trace_interpolation(
    shape: Sequence[int], x: Field, *_: Any, mode: str, **options: Any
) -> Field:
    if mode != "bilinear":
        raise ReceptiveFieldError(
            f"the receptive field of interpolation {mode!r} is not known: use 'bilinear'"
        )
    corners = bool(options.get("align_corners"))
    return Field(
        trace_bilinear(shape[-2], x.rows, corners), trace_bilinear(shape[-1], x.columns, corners)
    )


def trace_bilinear(size: int, span: Span, align_corners: bool) -> Span:
    """Trace bilinear interpolation along one axis to ``size`` positions.

    A new position sees its two neighbours, or only one if it is exactly on it. With
    ``align_corners``, the first and the last positions lie on the old ones.
    """
    count, new = len(span), np.arange(size)
    if align_corners:
        position, remainder = np.divmod(new * (count - 1), max(1, size - 1))
    else:
        position, remainder = np.divmod(((2 * new + 1) * count - size).clip(0, None), 2 * size)
    both = np.stack([position, (position + 1).clip(None, count - 1)], axis=1)
    return span.unite_taps(np.stack([remainder >= 0, remainder > 0], axis=1), both)


def trace_padding(
    shape: Sequence[int], x: Field, pad: Sequence[int], mode: str = "constant", value: float = 0
) -> Field:
    if mode != "constant" or len(pad) != 4:
        raise ReceptiveFieldError(
            f"the receptive field of padding {list(pad)} of mode {mode!r} is not known: pad height "
            "and width with a constant"
        )
    (left, _, top, _), (height, width) = pad, shape[-2:]
    return Field(
        trace_taps(height, x.rows, 1, 1, top, 1), trace_taps(width, x.columns, 1, 1, left, 1)
    )


def trace_average_pool(shape: Sequence[int], x: Field, *_: Any) -> Field:
    return Field(
        *(
            trace_matrix(build_averaging_matrix(cells, len(span), torch.empty(0)), span)
            for cells, span in zip(shape[-2:], (x.rows, x.columns), strict=True)
        )
    )


def trace_product(shape: Sequence[int], left: Field | Tensor, right: Field | Tensor) -> Field:
    """Trace the product of a matrix and a map: from the left it mixes rows, else columns."""
    if isinstance(left, Tensor) and isinstance(right, Field):
        return right.with_axis(-2, lambda span: trace_matrix(left, span))
    if isinstance(left, Field) and isinstance(right, Tensor):
        return left.with_axis(-1, lambda span: trace_matrix(right.T, span))
    raise ReceptiveFieldError(
        "the receptive field of a product of two maps is not known: use a matrix and a map"
    )


def trace_matrix(matrix: Tensor, span: Span) -> Span:
    return span.unite_taps(matrix.numpy() != 0)


def trace_narrow(shape: Sequence[int], x: Field, dim: int, start: int, length: int) -> Field:
    axis = find_axis(dim, len(shape))
    return x if axis is None else x.with_axis(axis, lambda span: span[start : start + length])


def trace_maximum(shape: Sequence[int], x: Field, dim: int, keepdim: bool = False) -> Field:
    axis = find_axis(dim, len(shape) + (not keepdim))
    if axis is None:
        return unite_positions(shape, x)
    return x.with_axis(axis, lambda span: span.unite_taps(np.ones((1, len(span)), dtype=bool)))


def trace_concatenation(shape: Sequence[int], fields: Sequence[Field], dim: int = 0) -> Field:
    axis = find_axis(dim, len(shape))
    if axis is None:
        return unite_positions(shape, fields)
    spans = [field.rows if axis == -2 else field.columns for field in fields]
    ends = Span(np.concatenate([s.first for s in spans]), np.concatenate([s.last for s in spans]))
    others = unite([field.columns if axis == -2 else field.rows for field in fields])
    return Field(ends, others) if axis == -2 else Field(others, ends)


def find_axis(dim: int, dims: int) -> Axis | None:
    """Find the axis of a map for a dimension of a tensor; None if it is not height or width."""
    axes: dict[int, Axis] = {-2: -2, -1: -1}
    return axes.get(dim if dim < 0 else dim - dims)


def make_pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


RULES: dict[str, Callable[..., Field]] = {
    "conv2d": trace_convolution,
    "max_pool2d": trace_max_pool,
    "avg_pool2d": trace_average_kernel,
    "adaptive_avg_pool2d": trace_average_pool,
    "interpolate": trace_interpolation,
    "matmul": trace_product,
    "__matmul__": trace_product,
    "__rmatmul__": trace_product,
    "narrow": trace_narrow,
    "pad": trace_padding,
    "amax": trace_maximum,
    "stack": trace_concatenation,
    "cat": trace_concatenation,
}
