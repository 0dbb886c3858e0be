"""Stopping a run on Ctrl-C or SIGTERM so that it can be resumed."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from maqd.training.environment import distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The user stopped a run.

    Args:
        signum: The signal.
        saved: Whether a checkpoint holds everything up to the last step.
    """

    def __init__(self, signum: int, *, saved: bool) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum
        self.saved = saved


class StopRequest:
    """Records the first signal for the training loop; a second one stops at once."""

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, Any] = {}

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum:
            raise KeyboardInterrupt
        self.signum = signum

    def install(self) -> None:
        """Install the handlers; a second call installs them again if other code has replaced them."""
        for signum in SIGNALS:
            previous = signal.signal(signum, self._note)
            self._previous.setdefault(signum, previous)

    def restore(self) -> None:
        """Restore the handlers."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}


class StopCallback(pl.Callback):
    """Ends training after the step in which a stop was requested, with a checkpoint.

    Args:
        request: The request.
        save: Saves the checkpoint; called by all processes.
        check_every: Optimizer steps between two agreements of several processes.
    """

    def __init__(self, request: StopRequest, save: Callable[[], None], *, check_every: int) -> None:
        self.request = request
        self.save = save
        self.check_every = check_every

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Replace Lightning's handler of SIGTERM, which waits for the end of the epoch."""
        self.request.install()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop between two optimizer steps; after an epoch's last one only once it is validated and saved."""
        if pl_module.stepped and not pl_module.epoch_done and self._requested(trainer, pl_module.position.step):
            self.save()
            raise Interrupted(self.request.signum or signal.SIGINT, saved=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stop after the epoch, whose checkpoint was just saved; a run that is complete simply ends."""
        if not pl_module.finished and self._requested(trainer, 0):
            raise Interrupted(self.request.signum or signal.SIGINT, saved=True)

    def _requested(self, trainer: pl.Trainer, step: int) -> bool:
        if not distributed():
            return self.request.signum != 0
        if step % self.check_every:
            return False
        flag = torch.tensor(self.request.signum, device=trainer.strategy.root_device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())
