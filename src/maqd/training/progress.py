"""Progress of a training: a bar on a terminal, a few lines anywhere else."""

import math
import sys
import time
from typing import Any, TextIO

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from maqd.training.checkpoint import evaluated_images

LINE_EVERY = 30.0
"""Seconds between two lines within an epoch where there is no terminal."""


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Output:
    """Where messages go.

    Args:
        stream: The text stream; standard output by default.
        silent: Whether to show nothing; for all processes but the first.
    """

    def __init__(self, stream: TextIO | None = None, *, silent: bool = False) -> None:
        self.stream = stream or sys.stdout
        self.silent = silent
        self.console = Console(file=self.stream, highlight=False, soft_wrap=True)

    @property
    def terminal(self) -> bool:
        """Whether the stream is a terminal."""
        return self.console.is_terminal

    def line(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        if self.silent:
            return
        if self.terminal:
            self.console.print(text, markup=False)
        else:
            print(text, file=self.stream, flush=True)


class ProgressCallback(pl.Callback):
    """Shows step, loss, learning rate, images (or tokens) per second and the time that is left.

    Only the first process has one. Nothing here waits for the device: losses are those the metrics have read.

    Args:
        output: Where to.
        label: Put before each line, for several trainings in one go.
        epochs_per_line: Epochs between two lines that stay.
    """

    def __init__(self, output: Output, label: str = "", epochs_per_line: int = 1) -> None:
        self.output = output
        self.epochs_per_line = epochs_per_line
        self.label = f"{label}  " if label else ""
        self._bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the bar."""
        self._begin = self._last_line = time.monotonic()
        self._first = self._done = pl_module.position.step
        if self.output.terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[rest]}"),
                console=self.output.console,
                refresh_per_second=4,
                transient=True,
                expand=True,
            )
            self._task = self._bar.add_task(
                f"{self.label}training", total=pl_module.steps, completed=self._first, rest=""
            )
            self._bar.start()

    def _figures(self, pl_module: Any) -> str:
        done = max(self._done - self._first, 1)
        left = (time.monotonic() - self._begin) / done * (pl_module.steps - self._done)
        left_and_rate = f"lr {pl_module.learning_rate:.2e}  left {duration(left)}"
        if math.isnan(pl_module.last_loss):  # before the metrics are read for the first time
            return left_and_rate
        text = pl_module.info.text
        rate = pl_module.images_per_second * (pl_module.info.shape[0] if text else 1)
        return f"loss {pl_module.last_loss:.4f}  {rate:,.0f} {'tokens' if text else 'img'}/s  {left_and_rate}"

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Advance the bar."""
        if not pl_module.stepped:
            return
        self._done = pl_module.position.step
        now = time.monotonic()
        if self._bar is not None:
            if now - self._last_line > 0.2:
                self._last_line = now
                self._bar.update(self._task, completed=self._done, rest=self._figures(pl_module))
        elif now - self._last_line > LINE_EVERY:
            self._last_line = now
            self.output.line(f"{self.label}step {self._done}/{pl_module.steps}  {self._figures(pl_module)}")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the epoch's clock."""
        self._epoch_begin = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Print the line of an epoch that is not evaluated."""
        if not pl_module.evaluates:
            self._print_epoch(pl_module, "")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Print the epoch's line."""
        self._print_epoch(pl_module, f"{evaluated_images(pl_module.config)} {pl_module.evaluation}  ")

    def _print_epoch(self, pl_module: Any, result: str) -> None:
        self._last_line = time.monotonic()
        epoch, epochs = pl_module.position.epoch, pl_module.config.epochs
        if epoch % self.epochs_per_line and epoch != epochs:
            return
        self.output.line(
            f"{self.label}epoch {epoch:>{len(str(epochs))}}/{epochs}  "
            f"loss {pl_module.train_loss:.4f}  {result}"
            f"{time.monotonic() - self._epoch_begin:.1f} s"
        )

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
