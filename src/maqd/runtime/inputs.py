"""What callers hand to engines, checked and brought into one form; and random samples that are hard for engines."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError
from maqd.graph import Graph, Input, Storage
from maqd.numerics.states import PIXELS


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """A batch for one input of a graph.

    Args:
        input: The input.
        given: What was given, of the input's storage type: N x its shape, or with the channels last.
        channels_last: Whether the channels are last.
    """

    input: Input
    given: NDArray[np.generic]
    channels_last: bool

    @cached_property
    def array(self) -> NDArray[np.generic]:
        """What was given, N x the input's shape, contiguous."""
        return np.ascontiguousarray(np.moveaxis(self.given, -1, 1) if self.channels_last else self.given)

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """The codes, N x the input's shape."""
        border = self.input.border
        if border is not None:
            return border.codes(self.array.astype(np.float32, copy=False), self.input.grid)
        return self.array.astype(np.int64) - self.input.zero


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Batches for all inputs of a graph.

    Args:
        samples: One an input, in the graph's order.
        single: Whether single samples were given instead of batches.
    """

    samples: tuple[Samples, ...]
    single: bool

    @property
    def count(self) -> int:
        """N."""
        return len(self.samples[0].given)

    @property
    def codes(self) -> tuple[NDArray[np.int64], ...]:
        """The codes of each input."""
        return tuple(one.codes for one in self.samples)


def prepare(graph: Graph, *inputs: object) -> Prepared:
    """Check what a caller gives.

    Args:
        graph: A valid graph.
        inputs: An array for each input, or one mapping from keys to arrays: NumPy arrays or PyTorch tensors of the
            input's storage type (floats of any precision where that is float32); N x the input's shape, or N x its
            positions x channels (the first where a shape is both), or single samples of such shapes.

    Raises:
        EngineError: An input is missing, or has another type, shape or range, or is not a number.
    """
    given = inputs
    if len(inputs) == 1 and not isinstance(inputs[0], np.ndarray) and isinstance(inputs[0], Mapping):
        by_key = inputs[0]
        keys = [node.key for node in graph.inputs]
        if set(by_key) != set(keys):
            raise EngineError(f"the network takes the inputs {', '.join(keys)}, got {', '.join(map(str, by_key))}")
        given = tuple(by_key[key] for key in keys)
    if len(given) != len(graph.inputs):
        keys = ", ".join(node.key for node in graph.inputs)
        raise EngineError(f"the network takes {len(graph.inputs)} inputs ({keys}), got {len(given)}")
    found = [read_samples(node, value) for node, value in zip(graph.inputs, given, strict=True)]
    if len(found) > 1:
        counts = {len(samples.given) for samples, _ in found}
        if len(counts) != 1 or len({single for _, single in found}) != 1:
            raise EngineError(f"all inputs must have the same number of samples, got {sorted(counts)}")
    return Prepared(samples=tuple(samples for samples, _ in found), single=found[0][1])


def read_samples(node: Input, value: object) -> tuple[Samples, bool]:
    """A batch for one input, and whether it was a single sample; see `prepare`.

    Raises:
        EngineError: It has another type, shape or range than the input, or is not a number.
    """
    if not isinstance(value, np.ndarray) and hasattr(value, "detach"):  # a PyTorch tensor, without importing PyTorch
        value = np.asarray(value.detach().cpu())  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(value, np.ndarray):
        raise _refused(node, type(value).__name__)
    floats = node.storage is Storage.F32
    if floats and np.issubdtype(value.dtype, np.floating):
        value = value.astype(np.float32, copy=False)
    if value.dtype != node.dtype:
        raise _refused(node, f"{value.dtype} {value.shape}")
    shape, last = node.shape, node.last
    single = value.shape in (shape, last)
    batch = value[None] if single else value
    if batch.ndim == 0 or batch.shape[1:] not in (shape, last):
        raise _refused(node, f"{value.dtype} {value.shape}")
    if floats and np.isnan(batch).any():
        raise EngineError(f"input {node.key!r} must hold numbers, got not-a-number; clean the samples")
    if node.limits is not None and batch.size:
        low, high = node.limits
        if batch.min() < low or batch.max() > high:
            raise EngineError(f"input {node.key!r} must be in {low} .. {high}, got {batch.min()} .. {batch.max()}")
    return Samples(input=node, given=np.ascontiguousarray(batch), channels_last=batch.shape[1:] != shape), single


def _refused(node: Input, got: str) -> EngineError:
    pixels = node.storage is Storage.U8 and node.grid == PIXELS
    remedy = "raw pixels 0 .. 255, channels first, not scaled to floats" if pixels else f"{node.storage.value} samples"
    return EngineError(
        f"the network takes a {node.storage.value} array of shape N x {' x '.join(map(str, node.shape))} for its input "
        f"{node.key!r}, got {got}; pass {remedy}"
    )


def random(graph: Graph, count: int, seed: int = 0) -> tuple[NDArray[np.generic], ...]:
    """Samples that are hard for engines, for each input of a graph.

    They are random codes; the second sample has the lowest ones, the third the highest ones. Floats lie in the middle
    between two codes, where rounding decides, or far beyond the ends.

    Returns:
        One array an input, of its storage type, `count` x its shape.
    """
    generator = np.random.default_rng(seed)
    found: list[NDArray[np.generic]] = []
    for node in graph.inputs:
        codes = generator.integers(node.grid.low, node.grid.high + 1, (count, *node.shape))
        codes[1:2], codes[2:3] = node.grid.low, node.grid.high
        border = node.border
        if border is None:
            found.append((codes + node.zero).astype(node.storage.dtype))
            continue
        column = (-1, *[1] * (len(node.shape) - 1 - border.axis))
        a, b = (value.astype(np.float64).reshape(column) for value in (border.multiplier, border.offset))
        halves = generator.integers(0, 2, codes.shape) / 2
        values = (codes - b - halves) * 2.0**border.shift / np.where(a == 0, 1, a)
        values[1:2], values[2:3] = -np.inf, np.inf
        found.append(values.astype(np.float32))
    return tuple(found)
