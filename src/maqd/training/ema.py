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

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards the weights of `network`."""
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for average, weight in zip(_tensors(self.network), _tensors(network), strict=True):
            if average.is_floating_point():
                averages.append(average)
                weights.append(weight.detach())
            else:
                average.copy_(weight)
        torch._foreach_lerp_(averages, weights, 1 - ema_decay(self.step, self.decay))  # pyright: ignore[reportPrivateImportUsage]
        self.step += 1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the average to the device of the trained network."""
        self.network.to(pl_module.device)
        self._seen = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update after every optimizer step, not after every accumulated batch."""
        if trainer.global_step != self._seen:
            self._seen = trainer.global_step
            self.update(pl_module.network)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save the average."""
        checkpoint[CHECKPOINT_KEY] = self.network.state_dict()
        checkpoint["ema_step"] = self.step

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Continue with a saved average."""
        self.network.load_state_dict(checkpoint[CHECKPOINT_KEY])
        self.step = checkpoint["ema_step"]


def _tensors(network: nn.Module) -> list[Tensor]:
    # Not network.buffers(): those that are not saved are caches, which layers compute anew.
    return list(network.state_dict(keep_vars=True).values())
