"""Which process of how many this is, and the device it computes on."""

import os
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from maqd.errors import ConfigError
from maqd.settings.training import ComputeConfig, Device


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The place of this process among those that train together.

    Args:
        rank: Number of this process, 0 for the one that writes files.
        world: Number of processes.
        launched: Whether another process started this one.
    """

    rank: int
    world: int
    launched: bool


def distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def below_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def resolve_compute(config: ComputeConfig) -> ComputeConfig:
    """The configuration with the device that is there and, below torchrun, its numbers of processes.

    Raises:
        ConfigError: A CUDA device is asked for and there is none.
    """
    device = config.device
    if device is Device.AUTO:
        device = Device.CUDA if torch.cuda.is_available() else Device.CPU
    if device is Device.CUDA and not torch.cuda.is_available():
        raise ConfigError("compute.device is cuda, but PyTorch finds no CUDA device; set it to cpu")
    config = replace(config, device=device)
    if below_torchrun():
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        config = replace(config, devices=local, nodes=world // local)
    if device is Device.CUDA and config.devices > torch.cuda.device_count():
        raise ConfigError(
            f"compute.devices is {config.devices}, but there are {torch.cuda.device_count()} CUDA devices"
        )
    return config


def processes(config: ComputeConfig) -> Processes:
    """The place of this process, from the environment that torchrun or Lightning's launcher sets."""
    world = config.devices * config.nodes
    if world == 1:
        return Processes(rank=0, world=1, launched=False)
    if below_torchrun():
        return Processes(rank=int(os.environ["RANK"]), world=world, launched=True)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    node = int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0")))
    return Processes(rank=node * config.devices + local, world=world, launched="LOCAL_RANK" in os.environ)


def device_of(config: ComputeConfig) -> torch.device:
    """The device of a resolved configuration, for a single process."""
    return torch.device("cuda" if config.device is Device.CUDA else "cpu")
