"""The loop of Lightning trains a converted network: an ordinary LightningModule around it.

    python examples/convert_with_lightning.py [--epochs 4] [--width 16]

Needs maqd[train].
"""

import argparse

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from convert_digits import accuracy, digits, network, train
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import maqd


class Classifier(pl.LightningModule):
    """Any network."""

    def __init__(self, model: nn.Module, rate: float = 5e-3) -> None:
        super().__init__()
        self.model, self.rate = model, rate

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.model(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([value for value in self.parameters() if value.requires_grad], lr=self.rate)


def main(arguments: list[str] | None = None) -> None:
    """Trains in float, converts, trains on with Lightning, lowers."""
    parser = argparse.ArgumentParser(description="Train a converted network with Lightning.")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--width", type=int, default=16)
    options = parser.parse_args(arguments)
    pl.seed_everything(0, verbose=False)
    (train_x, train_y), (test_x, test_y) = digits()
    model = network(options.width)
    train(model, train_x, train_y, options.epochs, 1e-2)
    few = maqd.convert(model, train_x[:256], weights=3, activations=4).model
    trainer = pl.Trainer(
        max_epochs=options.epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", devices=1,
    )  # fmt: skip
    trainer.fit(Classifier(few), DataLoader(TensorDataset(train_x, train_y), 64, shuffle=True, drop_last=True))
    print(f"few states: {accuracy(few, test_x, test_y):.1%}")
    print(f"integers: {len(maqd.lower(few, train_x[:1]).graph.nodes)} nodes")


if __name__ == "__main__":
    main()
