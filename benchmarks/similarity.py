"""How alike the activations of different images are, by depth, in networks before training.

    python benchmarks/similarity.py [--architectures vgg_narrow preact_resnet_narrow] [--path DIR] [--json]

The mean cosine between two images' activations after each normalization, over 128 training images and three seeds,
for each normalization. Where it nears 1, the layers after it see one and the same image, and a network is slow to begin
(Lubana et al., "Beyond BatchNorm", NeurIPS 2021).
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from harness import machine, options_parser, print_json, print_machine
from maqd.data import DataConfig, Source, open_data
from maqd.models import Architecture, ModelConfig, build_model
from maqd.nn import Norm, NormActivation, Override, QuantConfig

NORMS = (Norm.BN, Norm.EBN, Norm.LBN, Norm.LEVELLED_LBN)
SEEDS = 3


def cosine(activations: Tensor) -> float:
    """Mean cosine between different samples.

    Args:
        activations: N x ..., N >= 2.
    """
    unit = nn.functional.normalize(activations.flatten(1).double(), dim=1)
    count = len(unit)
    return float((unit.sum(0).square().sum() - count) / (count * (count - 1)))


def similarities(network: nn.Module, images: Tensor) -> dict[str, float]:
    """`cosine` after every normalization, with the statistics of the batch.

    Args:
        network: Left in training mode.
        images: uint8, N x C x H x W.
    """
    found: dict[str, float] = {}
    names = {module: name for name, module in network.named_modules()}

    def record(module: nn.Module, _: object, out: Tensor) -> None:
        found[names[module]] = cosine(out)

    for module in names:
        if isinstance(module, NormActivation):
            module.register_forward_hook(record)
    network.train()
    with torch.no_grad():
        network(images)
    return found


def measure(architecture: Architecture, norm: Norm, images: Tensor) -> dict[str, float]:
    """Means over seeds at (3,4), by layer."""
    fine = [Override(pattern=pattern, weight_states=15) for pattern in ("stem*", "head")]
    config = ModelConfig(architecture=architecture, quant=QuantConfig(norm=norm, overrides=fine))
    runs = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        network = build_model(config, in_channels=3, num_classes=10, image_size=images.shape[-1])
        runs.append(similarities(network, images))
    return {name: sum(run[name] for run in runs) / SEEDS for name in runs[0]}


def main() -> None:
    """Prints a table for each architecture."""
    parser = options_parser(__doc__)
    choices = [a.value for a in Architecture]
    standard = ["vgg_narrow", "preact_resnet_narrow", "preact_resnet18"]
    parser.add_argument("--architectures", nargs="+", default=standard, choices=choices)
    parser.add_argument("--path", type=Path, help="directory of CIFAR-10; downloaded without")
    options = parser.parse_args()
    data = DataConfig(source=Source.CIFAR10, path=None if options.path is None else str(options.path), batch_size=128)
    images, _ = next(iter(open_data(data, seed=0).train_loader()))
    figures: dict[str, object] = {}
    for architecture in options.architectures:
        columns = {norm: measure(Architecture(architecture), norm, images) for norm in NORMS}
        for norm, column in columns.items():
            figures[f"{architecture}_{norm.value}"] = column
        if not options.json:
            print(f"{architecture:24s}" + "".join(f"{norm.value:>14s}" for norm in NORMS))
            for name in columns[NORMS[0]]:
                print(f"{name:24s}" + "".join(f"{columns[norm][name]:14.3f}" for norm in NORMS))
    if options.json:
        print_json(machine(), figures)
    else:
        print_machine(machine())


if __name__ == "__main__":
    main()
