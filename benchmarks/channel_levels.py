"""How far the channels of each normalization's input have drifted apart, and how many are dead after it.

    python benchmarks/channel_levels.py RUN [RUN ...] [--path DIR] [--json]

For every normalization of a trained run, over 500 test images:
between   share of the input's variance that is between the channels' means: 0 where all have one mean
spread    standard deviation over channels of log2 of their standard deviation: 0 where all have one scale
dead      share of channels whose code is the same at 99.9% of all positions
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from harness import machine, options_parser, print_json, print_machine
from maqd.data import open_data
from maqd.nn import NormActivation
from maqd.training.runs import load_network


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Of one normalization's input and output."""

    layer: str
    between: float
    spread: float
    dead: float


def levels(layer: str, x: Tensor, out: Tensor) -> Levels:
    """Measures N x C x H x W tensors before and after a normalization with its activation."""
    rows = x.movedim(1, -1).reshape(-1, x.shape[1]).double()
    variance, mean = torch.var_mean(rows, dim=0, correction=0)
    codes = out.movedim(1, -1).reshape(-1, x.shape[1])
    commonest = torch.stack([(codes == value).double().mean(0) for value in codes.unique()]).max(0).values
    return Levels(
        layer=layer,
        between=float(mean.var(correction=0) / (mean.var(correction=0) + variance.mean())),
        spread=float(torch.log2(variance.clamp_min(1e-30).sqrt()).std()),
        dead=float((commonest >= 0.999).double().mean()),
    )


def measure(run: Path, path: str | None) -> list[Levels]:
    """All normalizations of a run's last checkpoint."""
    network, header = load_network(run)
    data = open_data(replace(header.config.data, path=path or header.config.data.path), seed=0)
    images, _ = next(iter(data.test_loader()))
    found: list[Levels] = []

    def hook(name: str) -> object:
        def record(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            found.append(levels(name, inputs[0], out))

        return record

    for name, module in network.named_modules():
        if isinstance(module, NormActivation):
            module.register_forward_hook(hook(name))  # pyright: ignore[reportArgumentType]
    network.eval()
    with torch.no_grad():
        network(images)
    return found


def main() -> None:
    """Prints a table a run."""
    parser = options_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--path", help="directory of the data set, where it is not the run's own")
    options = parser.parse_args()
    figures: dict[str, object] = {}
    for run in options.runs:
        found = measure(run, options.path)
        figures[str(run)] = [asdict(level) for level in found]
        if not options.json:
            print(f"{run}\n{'layer':24s} between  spread    dead")
            for level in found:
                print(f"{level.layer:24s} {level.between:7.3f} {level.spread:7.3f} {level.dead:7.3f}")
            mean = [sum(getattr(level, key) for level in found) / len(found) for key in ("between", "spread", "dead")]
            print(f"{'mean':24s} {mean[0]:7.3f} {mean[1]:7.3f} {mean[2]:7.3f}")
    if options.json:
        print_json(machine(), figures)
    else:
        print_machine(machine())


if __name__ == "__main__":
    main()
