"""What a run on text reports beside its losses: bits per character, tokens per second, and a sample of text."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from maqd.language.sampling import Sampling, draw
from maqd.training.checkpoint import evaluated_images
from maqd.training.metrics import MetricsWriter
from maqd.training.progress import Output

SAMPLE = 96
"""Bytes of a sample."""


@torch.no_grad()
def continue_text(network: nn.Module, start: bytes, count: int, context: int, sampling: Sampling) -> bytes:
    """Bytes that a network draws after others, one after the other.

    Args:
        network: Tokens uint8 N x T -> scores N x V x T, in evaluation mode.
        start: At least one byte.
        count: How many bytes to draw.
        context: Most bytes that the network sees.
        sampling: How they are drawn.
    """
    device = next(network.parameters()).device
    text, generator = bytearray(start), sampling.generator()
    for _ in range(count):
        tokens = torch.frombuffer(text[-context:], dtype=torch.uint8).to(device)
        scores: Tensor = network(tokens[None])[0, :, -1]
        text.append(draw(scores.float().cpu().numpy(), sampling, generator))
    return bytes(text[len(start) :])


class TextCallback(pl.Callback):
    """Writes an event "text" at each evaluation and shows it.

    Args:
        writer: Where to; None on processes that do not write.
        output: Where it is shown.
    """

    def __init__(self, writer: MetricsWriter | None, output: Output) -> None:
        self.writer = writer
        self.output = output

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the event."""
        if self.writer is None:
            return
        context, name = pl_module.info.shape[0], evaluated_images(pl_module.config)
        bits = pl_module.evaluation.loss / math.log(2)
        rate = pl_module.images_per_second * context
        sampling = Sampling(seed=pl_module.config.seed)
        sample = continue_text(pl_module.evaluated, b"\n", SAMPLE, context, sampling).decode(errors="replace")
        position = pl_module.position
        self.writer.write(
            "text",
            step=position.step,
            epoch=position.epoch,
            **{f"{name}_bits_per_character": bits},
            tokens_per_second=round(rate),
            sample=sample,
        )
        self.output.line(f"  {name} {bits:.4f} bits per character, {rate:,.0f} tokens/s: {sample!r}")
