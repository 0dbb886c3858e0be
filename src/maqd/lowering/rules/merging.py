"""Tensors side by side."""

from collections.abc import Sequence
from typing import Any

import torch

from maqd.graph import Concat
from maqd.lowering.builder import Codes, Raw, Rules, Step

MOST = Concat.arity[1]
"""Tensors that one node joins."""


def concat(step: Step, tensors: Sequence[Codes | Raw], dim: Any = 0, *, axis: Any = None) -> Codes:
    """Tensors side by side, after shifts to the smallest unit."""
    parts = [step.codes(tensor) for tensor in tensors]
    dim = dim if axis is None else axis
    rank = len(parts[0].type.shape) + 1
    if not isinstance(dim, int) or not -rank <= dim < rank or dim % rank == 0:
        step.refuse(f"it works along dimension {dim} of {rank}", "work along a dimension of the sample")
    while len(parts) > MOST:  # one node more for each MOST of them
        groups = [parts[first : first + MOST] for first in range(0, len(parts), MOST)]
        parts = [_join(step, group, dim % rank - 1, step.builder.free(f"{step.name}.part")) for group in groups]
    return _join(step, parts, dim % rank - 1, step.name)


def hstack(step: Step, tensors: Sequence[Codes | Raw]) -> Codes:
    """Tensors side by side along the first dimension of a sample."""
    return concat(step, tensors, 1)


def dstack(step: Step, tensors: Sequence[Codes | Raw]) -> Codes:
    """Tensors side by side along the second dimension of a sample."""
    return concat(step, tensors, 2)


def _join(step: Step, parts: list[Codes], axis: int, name: str) -> Codes:
    if len(parts) == 1:
        return parts[0]
    names = tuple(part.source for part in parts)
    return step.put(Concat(name=name, inputs=names, axis=axis, shifts=aligned(step, parts)), *parts)


def aligned(step: Step, sources: Sequence[Codes]) -> tuple[int, ...]:
    """How far each tensor is shifted left to reach the smallest unit."""
    if not all(source.known for source in sources):
        return (0,) * len(sources)
    exponents = [source.type.exponent for source in sources]
    shifts = tuple(exponent - min(exponents) for exponent in exponents)
    if max(shifts) > 31:
        step.refuse(f"its units are up to 2^{max(shifts)} apart", "bring them closer with the layers' gains")
    return shifts


RULES = Rules(
    modules={},
    functions={
        **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), concat),
        torch.hstack: hstack,
        torch.dstack: dstack,
    },
)
