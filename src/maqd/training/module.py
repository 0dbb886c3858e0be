"""The Lightning module: one training step, one test step, the loaders of each epoch."""

import math
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from maqd.data import DataInfo, TrainLoader
from maqd.data.loaders import Batch
from maqd.errors import NonFiniteError
from maqd.nn.calling import call, each
from maqd.settings.training import TrainConfig
from maqd.training.checkpoint import KEY, Evaluation, Header, Position
from maqd.training.environment import distributed
from maqd.training.metrics import LossWindow
from maqd.training.nonfinite import locate_nonfinite
from maqd.training.objective import Objective, Sums
from maqd.training.optim import build_optimizer, build_scheduler, learning_rate


class EpochLoader:
    """The batches of one epoch that are still to come.

    Lightning's own bookkeeping of unfinished epochs is not used: each `Trainer.fit` starts at its batch 0, and this
    loader starts where the run is.
    """

    def __init__(self, loader: TrainLoader, epoch: int, batch: int) -> None:
        self.loader = loader
        self.epoch = epoch
        self.batch = batch

    def __len__(self) -> int:
        return len(self.loader) - self.batch

    def __iter__(self) -> Iterator[Batch]:
        self.loader.load_state_dict({"epoch": self.epoch, "batch": self.batch})
        yield from self.loader


def step_seed(seed: int, rank: int, step: int) -> int:
    """The seed of the global random generator in a step: what is random in a layer survives resuming."""
    # Odd multipliers modulo 2**63 keep neighbouring steps, ranks and seeds apart.
    return (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) % 2**63


class TrainingModule(pl.LightningModule):
    """A network in training.

    Args:
        config: The run.
        network: The inputs of a batch -> what the objective takes; images -> float N x classes logits.
        objective: Loss and metric.
        info: Its data.
        train_loader: Training batches of this process.
        evaluation_loader: Batches of this process to evaluate after each epoch: held-out images, or the test set.
        start: Where the run starts or continues.
        best: Best result on held-out images so far.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        *,
        objective: Objective,
        info: DataInfo,
        train_loader: TrainLoader,
        evaluation_loader: Any,
        start: Position,
        best: Evaluation | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.objective = objective
        self.info = info
        self.start = start
        self.best = best
        self.evaluation: Evaluation | None = None
        self.losses = LossWindow()
        self.epoch_losses = LossWindow()
        self.epoch_hits = LossWindow()
        self.last_loss = math.nan
        self.train_loss = math.nan
        self.train_accuracy = math.nan
        self.images_per_second = 0.0
        self.learning_rate = math.nan
        self._loaders = (train_loader, evaluation_loader)
        self._batch = start.batch
        self._seen_step = 0
        # In lists, so that they are no further submodules with parameters of their own.
        self._evaluated = [network]
        self._forward = [torch.compile(network) if config.compute.compile else network]

    @property
    def _windows(self) -> tuple[LossWindow, ...]:
        return self.losses, self.epoch_losses, self.epoch_hits

    @property
    def batches_per_epoch(self) -> int:
        """Training batches of this process per epoch."""
        return len(self._loaders[0])

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run; an epoch's last batches make a step of their own."""
        return self.config.epochs * math.ceil(self.batches_per_epoch / self.config.optim.accumulate)

    @property
    def epoch(self) -> int:
        """Epochs done before the current one."""
        return self.start.epoch + self.trainer.current_epoch

    @property
    def epoch_done(self) -> bool:
        """Whether the current epoch has no batch left."""
        return self._batch >= self.batches_per_epoch

    @property
    def stepped(self) -> bool:
        """Whether the last batch completed an optimizer step."""
        return self.trainer.global_step != self._seen_step

    @property
    def position(self) -> Position:
        """Where the run would continue if it stopped after the last batch."""
        step = self.start.step + self.trainer.global_step
        if self.epoch_done:
            return Position(epoch=self.epoch + 1, batch=0, step=step)
        return Position(epoch=self.epoch, batch=self._batch, step=step)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.position.epoch >= self.config.epochs

    @property
    def evaluated(self) -> nn.Module:
        """The network that validation evaluates: the trained one unless `evaluate_with` was called."""
        return self._evaluated[0]

    def evaluate_with(self, network: nn.Module) -> None:
        """Let validation evaluate another network, such as a moving average."""
        self._evaluated[0] = network

    def header(self) -> Header:
        """What a checkpoint written now has to say."""
        return Header(
            config=self.config,
            data=self.info,
            processes=self.trainer.world_size,
            position=self.position,
            evaluation=self.evaluation,
            best=self.best,
        )

    def train_dataloader(self) -> EpochLoader:
        """The rest of the current epoch; Lightning asks before each."""
        current = self.trainer.current_epoch
        return EpochLoader(self._loaders[0], self.epoch, self.start.batch if current == 0 else 0)

    @property
    def evaluates(self) -> bool:
        """Whether the current epoch ends with an evaluation."""
        return (self.epoch + 1) % self.config.evaluate_every == 0 or self.epoch + 1 >= self.config.epochs

    def val_dataloader(self) -> Any:
        """What is evaluated after the current epoch; Lightning asks at its end."""
        return self._loaders[1] if self.evaluates else []

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule of the configuration."""
        optimizer = build_optimizer(self.network.parameters(), self.config.optim)
        scheduler = build_scheduler(optimizer, self.config.optim, steps=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Lightning limits the threads of several processes; the configuration decides."""
        if self.config.compute.threads is not None:
            torch.set_num_threads(self.config.compute.threads)

    def on_train_epoch_start(self) -> None:
        """Start counting batches."""
        self._batch = self.start.batch if self.trainer.current_epoch == 0 else 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what is random in a layer, and note the learning rate of this step."""
        step = self.start.step + self.trainer.global_step
        batch_number = self.epoch * self.batches_per_epoch + self._batch
        seed = step_seed(self.config.seed, self.global_rank, batch_number)
        # Not torch.manual_seed: it costs a millisecond, and keeps a stack trace for each call without CUDA.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        self.learning_rate = learning_rate(step, self.config.optim, steps=self.steps)
        self._seen_step = self.trainer.global_step
        self.evaluation = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch, in fp32."""
        inputs, targets = batch
        with self._autocast():
            outputs = call(self._forward[0], inputs)
        loss = self.objective.training_loss(outputs, targets)
        self.losses.add(loss)
        self.epoch_losses.add(loss)
        if self.objective.counts:
            self.epoch_hits.add((outputs.detach().argmax(1) == targets).float().mean())
        if loss.device.type == "cpu" and not distributed():
            # On a CPU the check costs no waiting, and it finds a bad loss before the parameters change.
            self.check_loss(loss.item(), batch)
        self._batch += 1
        return loss

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.compute.bf16)

    def check_loss(self, loss: float, batch: Batch) -> None:
        """Check a loss that was already read.

        Raises:
            NonFiniteError: It is infinite or not a number; the message names the layer where that began.
        """
        if math.isfinite(loss):
            return
        # Not with several processes: repeating the batch in one of them would wait for the others forever.
        with self._autocast():
            where = locate_nonfinite(self.network, None if distributed() else batch[0])
        raise NonFiniteError(
            f"the training loss became {loss} at step {self.start.step + self.trainer.global_step}: {where}; "
            "the last checkpoint is kept; lower optim.lr or set optim.gradient_clip and start again"
        )

    def on_validation_epoch_start(self) -> None:
        """Evaluate the exact function: fp32, evaluation mode."""
        self.evaluated.eval()
        self._counts = Sums(self.objective, self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a batch."""
        inputs, targets = batch
        self._counts.add(call(self.evaluated, inputs), targets, len(each(inputs)[0]))

    def on_validation_epoch_end(self) -> None:
        """Sum the counts of all processes."""
        self.evaluation = self._counts.read()
        self.read_epoch()

    def read_epoch(self) -> None:
        """Read the means of the epoch over all processes: training loss, and accuracy on augmented images."""
        self.train_loss = self.epoch_losses.read()
        self.train_accuracy = self.epoch_hits.read()

    def train_figures(self) -> dict[str, float]:
        """What `read_epoch` found, by name."""
        counted = {"train_accuracy": self.train_accuracy} if self.objective.counts else {}
        return {"train_loss": self.train_loss, **counted}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the position of the run; Lightning's own counters are wrong after resuming."""
        checkpoint.pop("loops")
        checkpoint[KEY] = self.header().plain()
        checkpoint["losses"] = [window.state_dict() for window in self._windows]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the unfinished means of losses."""
        # Checkpoints of older versions do not have the accuracy, which is the last.
        for window, state in zip(self._windows, checkpoint["losses"], strict=False):
            window.load_state_dict(state, self.device)
