"""Finding where a network's numbers stopped being finite."""

import torch
from torch import Tensor, nn

from maqd.nn.calling import Inputs, call


def locate_nonfinite(network: nn.Module, inputs: Inputs | None) -> str:
    """One line that names the first layer, in order of execution, with an infinite or not-a-number value.

    Args:
        network: The network, in the state in which it gave a non-finite loss.
        inputs: The batch that did; None looks at the parameters only.
    """
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            layer, _, leaf = name.rpartition(".")
            return f"parameter {leaf!r} of layer {layer or 'network'!r} is not finite"
    if inputs is None:
        return "all parameters are finite; train on one device to find the layer"
    first: list[str] = []

    def record(name: str, module: nn.Module) -> None:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if not first and isinstance(output, Tensor) and not torch.isfinite(output).all():
                first.append(f"the output of layer {name or 'network'!r} ({type(module).__name__}) is not finite")

        handles.append(module.register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for name, module in network.named_modules():
            record(name, module)
        with torch.no_grad():
            call(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return first[0] if first else "every layer's output is finite, only the loss is not"


def all_finite(network: nn.Module) -> bool:
    """Whether every parameter is finite."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters())
