"""LBN trains at any mini-batch size: the digits network with LBN and with BN at batch 1, 2, 8 and 128.

    python benchmarks/batch_size.py [--epochs 6] [--seeds 3] [--json]

Both networks have M_w=3, M_a=4 and see the same images for the same number of epochs; the learning rate is scaled
with the root of the batch size. Prints the mean training loss of the last epoch and the test accuracy, mean and
spread over seeds, and whether batch normalization refuses N x C inputs of one row, where it would divide by zero.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from harness import machine, options_parser, print_json, print_machine, spread
from maqd.data import DataConfig, Source, open_data
from maqd.errors import ConfigError
from maqd.models import Architecture, ModelConfig, build_model
from maqd.nn import BatchNorm, Norm, QuantConfig

BATCHES = (1, 2, 8, 128)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one training."""

    loss: float
    accuracy: float


def train(norm: Norm, batch: int, *, epochs: int, seed: int) -> Outcome:
    """Trains the digits network."""
    torch.manual_seed(seed)
    data = open_data(DataConfig(source=Source.DIGITS, batch_size=batch), seed=seed)
    info = data.info
    config = ModelConfig(architecture=Architecture.DIGITS, quant=QuantConfig(norm=norm))
    model = build_model(config, in_channels=1, num_classes=info.num_classes, image_size=info.image_size)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    loader = data.train_loader()
    steps = epochs * len(loader)
    peak = 4e-3 * math.sqrt(batch / 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses: list[float] = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        losses = []
        for images, labels in loader:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        correct = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in data.test_loader())
    return Outcome(loss=sum(losses) / len(losses), accuracy=correct / info.test_size)


def refuses_single_values() -> bool:
    """Whether batch normalization says no to N x C at batch 1."""
    try:
        BatchNorm(8)(torch.zeros(1, 8))
    except ConfigError:
        return True
    return False


def main() -> None:
    """Trains all of them."""
    parser = options_parser(__doc__, seeds=True)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, object] = {
        "epochs": options.epochs,
        "seeds": options.seeds,
        "bn_refuses_one_value": refuses_single_values(),
    }
    if not options.json:
        print("batch  norm   loss, last epoch              test accuracy")
    for batch in BATCHES:
        losses = {}
        for norm in (Norm.LBN, Norm.BN):
            runs = [train(norm, batch, epochs=options.epochs, seed=seed) for seed in range(options.seeds)]
            loss, accuracy = spread([run.loss for run in runs]), spread([run.accuracy for run in runs])
            losses[norm] = loss.median
            figures[f"batch{batch}_{norm.value}_loss"] = loss
            figures[f"batch{batch}_{norm.value}_accuracy"] = accuracy
            if not options.json:
                print(f"{batch:5d}  {norm.value:4s}  {loss!s:28s}  {accuracy}")
        figures[f"batch{batch}_loss_ratio"] = losses[Norm.LBN] / losses[Norm.BN]
    where = machine()
    if options.json:
        print_json(where, figures)
    else:
        print(f"BN refuses N x C at batch 1: {figures['bn_refuses_one_value']}")
        print_machine(where)


if __name__ == "__main__":
    main()
