"""The Trainer of Hugging Face transformers trains a converted image classifier, built from a configuration.

    python examples/convert_with_transformers.py [--epochs 4]

Needs maqd[train] and transformers. Nothing is downloaded.
"""

import argparse
import tempfile

import torch
import torch.nn.functional as F
from convert_digits import accuracy, digits, train
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

import maqd


class Logits(nn.Module):
    """Images to logits: what is converted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values).logits


class WithLoss(nn.Module):
    """What a Trainer trains: images and labels to a loss and logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(pixel_values)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Digits(Dataset):
    """Samples as a Trainer takes them."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[place], "labels": self.labels[place]}


def main(arguments: list[str] | None = None) -> None:
    """Trains in float, converts, trains on with a Trainer, lowers."""
    parser = argparse.ArgumentParser(description="Train a converted network with transformers.")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    (train_x, train_y), (test_x, test_y) = digits()
    config = ResNetConfig(
        num_channels=1, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=10,
        downsample_in_first_stage=False,
    )  # fmt: skip
    train_x, test_x = (
        F.interpolate(images, scale_factor=4.0) for images in (train_x, test_x)
    )  # it halves twice at once
    model = Logits(ResNetForImageClassification(config))
    train(model, train_x, train_y, options.epochs, 1e-2)
    few = maqd.convert(model, train_x[:256], weights=3, activations=4).model
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            WithLoss(few),
            TrainingArguments(
                folder, num_train_epochs=options.epochs, per_device_train_batch_size=64, learning_rate=5e-3,
                report_to=[], save_strategy="no", logging_strategy="no", use_cpu=True, disable_tqdm=True,
            ),
            train_dataset=Digits(train_x, train_y),
        )  # fmt: skip
        trainer.train()
    print(f"few states: {accuracy(few, test_x, test_y):.1%}")
    print(f"integers: {len(maqd.lower(few, train_x[:1]).graph.nodes)} nodes")


if __name__ == "__main__":
    main()
