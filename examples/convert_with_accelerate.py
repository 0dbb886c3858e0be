"""A loop of Hugging Face Accelerate trains a converted network.

    python examples/convert_with_accelerate.py [--epochs 4] [--width 16]

Needs maqd[train] and accelerate.
"""

import argparse

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from convert_digits import accuracy, digits, network, train
from torch.utils.data import DataLoader, TensorDataset

import maqd


def main(arguments: list[str] | None = None) -> None:
    """Trains in float, converts, trains on with Accelerate, lowers."""
    parser = argparse.ArgumentParser(description="Train a converted network with Accelerate.")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--width", type=int, default=16)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    (train_x, train_y), (test_x, test_y) = digits()
    model = network(options.width)
    train(model, train_x, train_y, options.epochs, 1e-2)
    few = maqd.convert(model, train_x[:256], weights=3, activations=4).model

    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.AdamW([value for value in few.parameters() if value.requires_grad], lr=5e-3)
    loader = DataLoader(TensorDataset(train_x, train_y), 64, shuffle=True, drop_last=True)
    prepared, optimizer, loader = accelerator.prepare(few, optimizer, loader)
    prepared.train()
    for _ in range(options.epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            accelerator.backward(F.cross_entropy(prepared(images), labels))
            optimizer.step()

    few = accelerator.unwrap_model(prepared)
    print(f"few states: {accuracy(few, test_x, test_y):.1%}")
    print(f"integers: {len(maqd.lower(few, train_x[:1]).graph.nodes)} nodes")


if __name__ == "__main__":
    main()
