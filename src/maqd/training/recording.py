"""What a run records of its layers at each evaluation: non-zero weights and activations, and codes that changed."""

from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from maqd.nn import QuantConv1d, QuantConv2d, QuantLinear
from maqd.nn.calling import Inputs, each
from maqd.report.sparsity import LayerActivations, LayerWeights, activations, nonzero_ratio, weights
from maqd.training.checkpoint import evaluated_images
from maqd.training.metrics import MetricsWriter

CHECKPOINT_KEY = "recorded_codes"


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """A layer at an evaluation.

    Args:
        name: Dotted name of the layer, or of an activation.
        nonzero: Fraction of its weights (R_w) or activations (R_a) that are not zero.
        flips: Fraction of its weight codes that differ from those at the evaluation before; None of an activation, of
            float weights and at the first evaluation.
    """

    name: str
    nonzero: float
    flips: float | None


def weight_codes(network: nn.Module) -> dict[str, Tensor]:
    """The weight codes of every quantized layer, int16 on the CPU, by dotted name."""
    return {
        name: module.weight_codes().to("cpu", torch.int16)
        for name, module in network.named_modules()
        if isinstance(module, QuantConv1d | QuantConv2d | QuantLinear) and module.states is not None
    }


def changed(codes: dict[str, Tensor], before: dict[str, Tensor]) -> dict[str, float]:
    """The fraction of codes that differ, by layer; layers that are in both."""
    return {name: float((codes[name] != before[name]).float().mean()) for name in codes if name in before}


class RecordingCallback(pl.Callback):
    """Writes an event "layers" at each evaluation, with scalars and histograms for TensorBoard.

    R_a is measured on the first evaluation batch of the first process: a sample. The event says which samples those
    are, "validation" or "test", and how many; TensorBoard's tags do as well.

    Args:
        writer: Where to; None on processes that do not write.
    """

    def __init__(self, writer: MetricsWriter | None) -> None:
        self.writer = writer
        self.codes: dict[str, Tensor] = {}
        self._sample: Inputs | None = None

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first batch."""
        if batch_idx == 0 and self.writer is not None:
            self._sample = batch[0]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the event."""
        if self.writer is None or self._sample is None:
            return
        network: nn.Module = pl_module.evaluated
        with torch.no_grad():
            layers = weights(network)
            active, count = activations(network, [self._sample]), len(each(self._sample)[0])
            codes = weight_codes(network)
        self._sample = None
        flips = changed(codes, self.codes)
        self.codes = codes
        step, images = pl_module.position.step, evaluated_images(pl_module.config)
        records = [
            [LayerRecord(name=layer.name, nonzero=_ratio(layer), flips=flips.get(layer.name)) for layer in group]
            for group in (layers, active)
        ]
        self.writer.write(
            "layers",
            step=step,
            epoch=pl_module.position.epoch,
            images=images,
            count=count,
            R_w=nonzero_ratio(layers),
            **{f"{images}_R_a": nonzero_ratio(active)},
            weights=[asdict(record) for record in records[0]],
            activations=[asdict(record) for record in records[1]],
        )
        for title, group in zip(("R_w", f"R_a on {images}"), records, strict=True):
            self.writer.scalars({f"{title}/{record.name}": record.nonzero for record in group}, step=step)
        self.writer.scalars({f"flips/{name}": share for name, share in flips.items()}, step=step)
        self.writer.histograms({f"weight codes/{name}": values for name, values in codes.items()}, step=step)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the codes: a resumed run counts the changes since the evaluation before it stopped."""
        checkpoint[CHECKPOINT_KEY] = self.codes

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Continue with saved codes; checkpoints of older versions have none."""
        self.codes = checkpoint.get(CHECKPOINT_KEY, {})


def _ratio(layer: LayerWeights | LayerActivations) -> float:
    return layer.nonzero / layer.count if layer.count else 0.0
