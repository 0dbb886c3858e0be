"""Optimizers, the parameters that have no weight decay, and learning rate schedules in closed form."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from maqd.settings.training import OptimConfig, Optimizer, Schedule

ONE_CYCLE_START = 1 / 25
"""First learning rate of the one-cycle schedule, as a fraction of its peak."""


def learning_rate_factor(step: int, *, schedule: Schedule, steps: int, warmup: float) -> float:
    """The learning rate of a step as a fraction of its peak.

    With p = step / steps, w = warmup and c(q) = (1 + cos(pi q)) / 2:

    - constant: 1.
    - cosine: p / w (at least 1 / (w steps)) while p < w, then c((p - w) / (1 - w)).
    - one_cycle: 1/25 + 24/25 p / w while p < w, then c((p - w) / (1 - w)).

    Args:
        step: Number of optimizer steps done before, 0 .. steps.
        schedule: Which formula.
        steps: Number of steps of the whole run.
        warmup: w, fraction of steps in which the rate rises.
    """
    progress = min(step / max(steps, 1), 1.0)
    match schedule:
        case Schedule.CONSTANT:
            return 1.0
        case Schedule.COSINE if progress < warmup:
            # The first step must not be wasted on a rate of zero.
            return max(progress, 1 / steps) / warmup if warmup * steps > 1 else 1.0
        case Schedule.ONE_CYCLE if progress < warmup:
            return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * progress / warmup
        case _:
            return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def learning_rate(step: int, config: OptimConfig, *, steps: int) -> float:
    """The learning rate of a step; see `learning_rate_factor`."""
    return config.lr * learning_rate_factor(step, schedule=config.schedule, steps=steps, warmup=config.warmup)


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay (two or more dimensions) and without it (norms' affine parameters, biases)."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer of a configuration over these parameters."""
    groups = parameter_groups(parameters, config.weight_decay)
    match config.optimizer:
        case Optimizer.SGD:
            return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
        case Optimizer.ADAMW:
            return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)
        case Optimizer.RMSPROP:
            return torch.optim.RMSprop(
                groups, lr=config.lr, alpha=config.beta2, eps=config.eps, momentum=config.momentum
            )


def build_scheduler(optimizer: torch.optim.Optimizer, config: OptimConfig, *, steps: int) -> LambdaLR:
    """The scheduler that sets the learning rate of every optimizer step; its state is a few numbers."""
    factor = partial(learning_rate_factor, schedule=config.schedule, steps=steps, warmup=config.warmup)
    return LambdaLR(optimizer, factor)
