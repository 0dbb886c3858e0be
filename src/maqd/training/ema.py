"""The moving average of a network's weights."""

import copy
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

CHECKPOINT_KEY = "ema_state_dict"


def ema_decay(step: int, decay: float) -> float:
    """The decay of a step, min(decay, (1 + step) / (10 + step)): the average forgets the initial weights at once.

    Args:
        step: Number of updates done before.
        decay: Decay after many steps.
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage(pl.Callback):
    """Keeps a second network whose weights are the moving average of the trained one's.

    After every optimizer step, average <- d average + (1 - d) trained for everything floating-point in the state
    (running statistics belong to the weights they were measured with), d from `ema_decay`; the rest is copied.
    The average is what validation evaluates, and is saved as "ema_state_dict" in the checkpoint.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.step = 0
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._pairs: _Pairs | None = None

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards the weights of `network`."""
        averages, weights, others = self._pairs or _pairs(self.network, network)
        torch._foreach_lerp_(averages, weights, 1 - ema_decay(self.step, self.decay))  # pyright: ignore[reportPrivateImportUsage]
        for average, value in others:
            average.copy_(value)
        self.step += 1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the average to the device of the trained network."""
        self.network.to(pl_module.device)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Collect the tensors once: training changes them in place, and collecting them takes longer than averaging."""
        self._pairs = _pairs(self.network, pl_module.network)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update after every optimizer step, not after every accumulated batch."""
        if pl_module.stepped:
            self.update(pl_module.network)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save the average."""
        checkpoint[CHECKPOINT_KEY] = self.network.state_dict()
        checkpoint["ema_step"] = self.step

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Continue with a saved average."""
        self.network.load_state_dict(checkpoint[CHECKPOINT_KEY])
        self.step = checkpoint["ema_step"]


_Pairs = tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]
"""Averages, the weights they follow, and pairs of what is copied."""


def _pairs(average: nn.Module, network: nn.Module) -> _Pairs:
    # Not their buffers: those that are not saved are caches, which layers compute anew.
    states = (module.state_dict(keep_vars=True).values() for module in (average, network))
    pairs = [(mean, value.detach()) for mean, value in zip(*states, strict=True)]
    means = [mean for mean, _ in pairs if mean.is_floating_point()]
    values = [value for mean, value in pairs if mean.is_floating_point()]
    return means, values, [pair for pair in pairs if not pair[0].is_floating_point()]
