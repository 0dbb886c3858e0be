"""Calling networks of one or of several inputs."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

Inputs = Tensor | tuple[Tensor, ...]
"""A batch for a network: one tensor, or one for each parameter of its `forward`."""


def each(inputs: Inputs) -> tuple[Tensor, ...]:
    """The tensors of a batch, one for each input."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def call(network: Callable[..., Any], inputs: Inputs) -> Any:
    """What a network returns for a batch."""
    return network(*each(inputs))
