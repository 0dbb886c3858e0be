"""The same codes in another shape, and calls that change nothing."""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from maqd.graph import Flatten
from maqd.lowering.builder import Codes, Raw, Rules, Step


def reshape(step: Step, x: Codes | Raw, *arguments: Any, **options: Any) -> Codes:
    """Any call that keeps the order of a sample's values: view, reshape, flatten, squeeze and their like.

    The arguments need no reading: the traced result has the shape.
    """
    source, shape = step.codes(x), step.shape
    if shape == source.type.shape:
        return source
    if len(shape) != 1:
        step.refuse(
            f"it gives samples of shape {source.type.shape} the shape {shape}", "flatten samples whole, with flatten(1)"
        )
    return step.put(Flatten(name=step.name, inputs=(source.source,)), source)


def unchanged(step: Step, x: Any, *arguments: Any, **options: Any) -> Any:
    """A call that changes nothing in evaluation."""
    return x


def item(step: Step, values: Any, place: Any) -> Any:
    """One of several results."""
    if isinstance(values, Codes | Raw) or not isinstance(place, int | str):
        step.refuse("slicing is no operation of the integer graph", "use chunk or split")
    return values[place]


def _flatten_layer(step: Step, x: Codes | Raw, module: nn.Module) -> Codes:
    return reshape(step, x)


RULES = Rules(
    modules={
        nn.Flatten: _flatten_layer,
        nn.Unflatten: _flatten_layer,
        **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), unchanged),
    },
    functions={
        operator.getitem: item,
        **dict.fromkeys((torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze), reshape),
        **dict.fromkeys(
            ("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "reshape_as", "view_as"), reshape
        ),
        **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), unchanged),
        **dict.fromkeys(("contiguous", "clone", "detach", "float", "requires_grad_"), unchanged),
    },
)
