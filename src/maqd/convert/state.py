"""States of float networks in files."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from maqd.errors import CheckpointError


def load_state(network: nn.Module, path: Path) -> None:
    """Loads a network's state from a file.

    Raises:
        CheckpointError: It cannot be read, or has other tensors than the network, all of which the message names.
    """
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise nearly anything
        reason = (error.strerror or error) if isinstance(error, OSError) else str(error).partition("\n")[0]
        raise CheckpointError(f"{path} cannot be read as a state: {reason}; save it with torch.save") from error
    state = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds {type(found).__name__} and no tensors by name; save network.state_dict()")
    own = network.state_dict()
    faults = [f"{name} is missing" for name in own if name not in state]
    faults += [f"{name} is not the network's" for name in state if name not in own]
    faults += [
        f"{name} is {tuple(state[name].shape)}, the network's {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if faults:
        raise CheckpointError(
            f"{path} is the state of another network: {'; '.join(faults)}; name the network that it was saved from"
        )
    network.load_state_dict(state)
