"""A float network, trained in an ordinary loop, becomes one of few states and is trained on in the same loop.

    python examples/convert_digits.py [--epochs 6] [-o digits.maqd]

Needs maqd[train]; the digits come with scikit-learn.
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import maqd


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


def network(width: int = 16) -> nn.Module:
    """N x 1 x 8 x 8 -> N x 10."""
    stem = (nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    return nn.Sequential(
        *stem, Block(width), nn.MaxPool2d(2), Block(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
    )


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images N x 1 x 8 x 8 in 0 .. 1 and labels, to train on and to test with."""
    found = load_digits()
    images = torch.from_numpy(found.images).float()[:, None] / 16
    labels = torch.from_numpy(found.target).long()
    return (images[:1437], labels[:1437]), (images[1437:], labels[1437:])


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float) -> None:
    """An ordinary loop: nothing in it knows of maqd."""
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images))[: len(images) // 64 * 64].split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers."""
    return (model.eval()(images).argmax(1) == labels).double().mean().item()


def main(arguments: list[str] | None = None) -> None:
    """Trains, converts, trains on, lowers and saves."""
    parser = argparse.ArgumentParser(description="Convert a float network and train it on.")
    parser.add_argument("--epochs", type=int, default=6, help="in float, and again with few states")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("-o", "--output", default="digits.maqd")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    (train_x, train_y), (test_x, test_y) = digits()

    model = network(options.width)
    train(model, train_x, train_y, options.epochs, 1e-2)
    print(f"float: {accuracy(model, test_x, test_y):.1%}")

    result = maqd.convert(model, train_x[:256], weights=3, activations=4)
    print(result.report)
    print(f"few states, not trained: {accuracy(result.model, test_x, test_y):.1%}")
    train(result.model, train_x, train_y, options.epochs, 5e-3)
    print(f"few states, trained: {accuracy(result.model, test_x, test_y):.1%}")

    lowered = maqd.lower(result.model, train_x[:1])
    maqd.save(lowered.graph, options.output)
    found = torch.from_numpy(maqd.load(options.output).scores(test_x.numpy())).argmax(1)
    print(f"{options.output}, integers only: {(found == test_y).double().mean().item():.1%}")


if __name__ == "__main__":
    main()
