"""What a run measures: losses during training, exact counts on the test set, both as JSON lines and for TensorBoard."""

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor

from maqd.errors import CheckpointError
from maqd.nn.calling import each
from maqd.training.checkpoint import Evaluation, Position, evaluated_images, write_run_file, writing_run_file
from maqd.training.environment import distributed


class LossWindow:
    """The mean of the losses since it was last read. It stays on the device: adding a loss waits for nothing."""

    def __init__(self) -> None:
        self.sum: Tensor | None = None
        self.count = 0

    def add(self, loss: Tensor) -> None:
        """Take a scalar loss."""
        loss = loss.detach().double()
        self.sum = loss if self.sum is None else self.sum + loss
        self.count += 1

    def read(self) -> float:
        """The mean over all processes; waits for the device, and starts anew."""
        if self.sum is None:
            return float("nan")
        total = torch.stack([self.sum, torch.full_like(self.sum, self.count)])
        if distributed():
            dist.all_reduce(total)
        self.sum, self.count = None, 0
        value, count = total.tolist()
        return value / count

    def state_dict(self) -> dict[str, Any]:
        """Sum and count, plain numbers."""
        return {"sum": None if self.sum is None else self.sum.item(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue with a saved sum and count."""
        stored = state["sum"]
        self.sum = None if stored is None else torch.tensor(stored, dtype=torch.float64, device=device)
        self.count = state["count"]


def truncate_metrics(path: Path, position: Position) -> None:
    """Drop the lines that a run wrote after the checkpoint it is resumed from, and a last line cut short."""
    if path.exists():
        kept = [entry for entry in read_metrics(path) if entry["step"] <= position.step]
        write_run_file(path, "".join(f"{json.dumps(entry)}\n" for entry in kept).encode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without those that are damaged or cut short; none if there is no such file."""
    found: list[dict[str, Any]] = []
    if path.exists():
        found = [entry for line in path.read_bytes().splitlines() if (entry := parse_entry(line)) is not None]
    return found


def parse_entry(line: bytes) -> dict[str, Any] | None:
    """A line of a run's metrics: what happened, "event", and after which step, "step"; None if it is damaged."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and isinstance(entry.get("event"), str) and type(entry.get("step")) is int
    return entry if whole else None


WINDOW = 10
"""Least number of steps whose mean loss is worth comparing."""


def loss_trend(entries: Iterable[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The mean training losses of the first and of the last tenth of a run's steps, each of at least `WINDOW` steps.

    Args:
        entries: Lines of its metrics, in order.

    Returns:
        Both means; None where the run has too few steps to compare.
    """
    lines: list[tuple[int, int, float]] = []  # first and last step that a loss is the mean of, and the loss
    for entry in entries:
        if entry.get("event") == "train" and isinstance(entry.get("loss"), int | float):
            lines.append((lines[-1][1] + 1 if lines else 1, entry["step"], entry["loss"]))
    if not lines:
        return None
    size = max(WINDOW, lines[-1][1] // 10)
    first = [line for line in lines if line[0] <= size]
    last = [line for line in lines if line[1] > lines[-1][1] - size]
    if first[-1][1] >= last[0][0] or first[-1][1] < WINDOW:
        return None
    means = [
        sum((end - begin + 1) * loss for begin, end, loss in part) / (part[-1][1] - part[0][0] + 1)
        for part in (first, last)
    ]
    return means[0], means[1]


class MetricsWriter:
    """Appends lines to metrics.jsonl and scalars to TensorBoard.

    Args:
        path: The JSON-lines file.
        tensorboard: Directory of the event files; None writes none.
        step: Optimizer steps done before; TensorBoard drops what was written for later ones.

    Raises:
        CheckpointError: A file cannot be opened.
    """

    def __init__(self, path: Path, tensorboard: Path | None, *, step: int) -> None:
        self._path = path
        self._board = None
        with contextlib.ExitStack() as opened:
            with writing_run_file(path):
                self._file = opened.enter_context(path.open("a", buffering=1))
            if tensorboard is not None:
                from torch.utils.tensorboard import SummaryWriter

                with writing_run_file(tensorboard):
                    self._board = SummaryWriter(str(tensorboard), purge_step=step + 1 if step else None)
            opened.pop_all()

    def write(self, event: str, *, step: int, **values: object) -> None:
        """Write one line; its numbers also go to TensorBoard as EVENT/NAME.

        Raises:
            CheckpointError: The disk is full, or writing failed otherwise.
        """
        with writing_run_file(self._path):
            self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        if self._board is not None:
            with writing_run_file(Path(self._board.log_dir)):
                for name, value in values.items():
                    if isinstance(value, int | float):
                        self._board.add_scalar(f"{event}/{name}", value, step)

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Write numbers to TensorBoard only.

        Raises:
            CheckpointError: As `write`.
        """
        if self._board is not None:
            with writing_run_file(Path(self._board.log_dir)):
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)

    def histograms(self, values: Mapping[str, Tensor], *, step: int) -> None:
        """Write distributions of integers to TensorBoard, a bin for each.

        Raises:
            CheckpointError: As `write`.
        """
        if self._board is not None:
            with writing_run_file(Path(self._board.log_dir)):
                for name, codes in values.items():
                    low, high = int(codes.min()), int(codes.max())
                    bins: Any = (torch.arange(low, high + 2).double() - 0.5).tolist()
                    self._board.add_histogram(name, codes.numpy(), step, bins=bins)

    def close(self) -> None:
        """Close the files.

        Raises:
            CheckpointError: What was still to be written could not be.
        """
        with contextlib.ExitStack() as stack:
            if self._board is not None:
                stack.enter_context(writing_run_file(Path(self._board.log_dir)))
                stack.callback(self._board.close)
            stack.enter_context(writing_run_file(self._path))
            stack.callback(self._file.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except CheckpointError:
            # The error that ended the run, such as the same full disk, is more useful.
            if kind is None:
                raise


class MetricsCallback(pl.Callback):
    """Reads the losses every `log_every` optimizer steps and writes metrics.

    Args:
        writer: Where to; None on processes that do not write.
        log_every: Optimizer steps between two lines of event "train".
    """

    def __init__(self, writer: MetricsWriter | None, log_every: int) -> None:
        self.writer = writer
        self.log_every = log_every
        self._gradient_norm: Tensor | None = None
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._started = time.perf_counter()
        self._images = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Exclude validation and saving from the rate."""
        self._restart_clock()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Measure the gradient of a step that gets a line, before it is clipped."""
        if (pl_module.position.step + 1) % self.log_every == 0:
            gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write a line where one is due."""
        self._images += len(each(batch[0])[0]) * trainer.world_size
        position: Position = pl_module.position
        if not pl_module.stepped or position.step % self.log_every:
            return
        loss = pl_module.losses.read()
        pl_module.check_loss(loss, batch)
        rate = self._images / (time.perf_counter() - self._started)
        pl_module.last_loss, pl_module.images_per_second = loss, rate
        if self.writer is not None:
            self.writer.write(
                "train",
                step=position.step,
                epoch=trainer.current_epoch + pl_module.start.epoch + 1,
                loss=loss,
                lr=pl_module.learning_rate,
                images_per_second=round(rate, 1),
                **({} if self._gradient_norm is None else {"gradient_norm": self._gradient_norm.item()}),
            )
        self._restart_clock()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the loss of an epoch that is not evaluated."""
        if pl_module.evaluates:
            return
        pl_module.read_epoch()
        if self.writer is not None:
            position: Position = pl_module.position
            self.writer.write(
                "epoch",
                step=position.step,
                epoch=position.epoch,
                lr=pl_module.learning_rate,
                **pl_module.train_figures(),
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the result."""
        result: Evaluation = pl_module.evaluation
        if self.writer is not None:
            images = evaluated_images(pl_module.config)
            self.writer.write(
                images,
                step=pl_module.position.step,
                epoch=pl_module.position.epoch,
                total=result.total,
                lr=pl_module.learning_rate,
                **({} if result.correct is None else {"correct": result.correct}),
                **pl_module.train_figures(),
                **result.figures(f"{images}_"),
            )
