"""`maqd convert`."""

import argparse
import inspect
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maqd.cli.options import Options, UsageError, some_path, whole
from maqd.cli.text import note
from maqd.errors import ConfigError, DataError
from maqd.graph import container
from maqd.io.arrays import SUFFIXES, read_arrays
from maqd.io.images import read_image
from maqd.io.outputs import Artefact, check_output
from maqd.numerics.states import States
from maqd.settings.conversion import ConversionConfig, Kept, Rounding
from maqd.settings.functions import split_name
from maqd.settings.model import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST = 512
"""Samples that are read."""

EPILOG = """\
the same in Python, where the result can be trained on:
  result = maqd.convert(network, images, weights=3, activations=4)
  print(result.report)
  maqd.save(maqd.lower(result.model.eval(), images).graph, "m.maqd")

example: maqd convert mynet:network --state net.pt --calibrate samples.npy -o m.maqd
"""


def command(arguments: list[str]) -> int:
    """Run `maqd convert`; the exit status."""
    parser = Options(
        usage="maqd convert PACKAGE.MODULE:FUNCTION --calibrate PATH -o FILE [--weights M] [--activations M] "
        "[--norm keep|lbn|levelled] [--rounding nearest|following] [--state FILE] "
        "[--size CxHxW] [--mean R,G,B] [--std R,G,B] [--json]",
        description="Turn a trained float network into an integer graph without training it: fit states to some data, "
        "say how well it agrees, prove it equal, and save it.",
        epilog=EPILOG,
    )
    parser.add_argument("network", metavar="PACKAGE.MODULE:FUNCTION", help="returns the float network")
    parser.add_argument(
        "--calibrate",
        metavar="PATH",
        type=some_path,
        required=True,
        help="a .npy or .npz file with samples (by the names of forward's parameters), or a folder of images",
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, type=some_path, help="the .maqd file to write")
    parser.add_argument("--weights", type=whole, default=255, metavar="M", help="states of the weights (255)")
    parser.add_argument("--activations", type=whole, default=256, metavar="M", help="states of the activations (256)")
    parser.add_argument(
        "--norm",
        choices=("keep", "lbn", "levelled"),
        help="what normalizations become; lbn also stands for those of each sample, LayerNorm and GroupNorm (keep)",
    )
    parser.add_argument(
        "--rounding",
        choices=("nearest", "following"),
        default="following",
        help="of weights: each by itself, or along the data, with the errors before it (following)",
    )
    parser.add_argument(
        "--state", metavar="FILE", type=some_path, help="its state: .safetensors, or as torch.save does"
    )
    parser.add_argument("--size", metavar="CxHxW", type=_sizes, help="size of the images of a folder, as 3x224x224")
    parser.add_argument("--mean", metavar="R,G,B", type=_numbers, help="of pixels in 0 .. 1 (0)")
    parser.add_argument("--std", metavar="R,G,B", type=_numbers, help="of pixels in 0 .. 1 (1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    config = _config(options)
    check_output(
        options.output, Artefact.GRAPH, inputs=[path for path in (options.calibrate, options.state) if path is not None]
    )

    from maqd.convert import convert
    from maqd.convert.pixels import FromPixels
    from maqd.convert.state import load_state
    from maqd.lowering import lower
    from maqd.models import build_from

    network = build_from(ModelConfig(function=options.network))
    if options.state is not None:
        load_state(network, options.state)
    if options.calibrate.is_dir():
        samples = _images(options.calibrate, options.size)
        network = FromPixels(network, options.mean or (0.0,), options.std or (1.0,))
    else:
        samples = _arrays(options.calibrate, network)
    result = convert(network, tuple(one[:1] for one in samples), config, calibrate=[samples])
    lowered = lower(result.model.eval(), tuple(one[:1] for one in samples))
    container.save(lowered.graph, options.output)
    size, report = options.output.stat().st_size, result.report
    if options.json:
        agreement = None if report.agreement is None else asdict(report.agreement)
        rows = [asdict(row) for row in report.rows]
        found = {"network": options.network, "output": str(options.output), "bytes": size}
        print(
            json.dumps({**found, "weights": report.weights, "macs": report.macs, "agreement": agreement, "rows": rows})
        )
        return 0
    print(report)
    print(f"\n{options.output}: {size:,} bytes")
    return 0


def _config(options: argparse.Namespace) -> ConversionConfig:
    """The states, after what can be said of the options without PyTorch.

    Raises:
        UsageError: A value is out of its range, or two of them do not go together.
    """
    try:
        split_name(options.network)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    of_images = {name: getattr(options, name) for name in ("size", "mean", "std")}
    if options.calibrate.is_dir():
        if options.size is None:
            raise UsageError(
                f"{options.calibrate} is a folder of images, whose size the network decides; pass --size, as 3x224x224"
            )
        for name in ("mean", "std"):
            if of_images[name] is not None and len(of_images[name]) not in (1, options.size[0]):
                raise UsageError(
                    f"--{name} must be one number or one for each of {options.size[0]} channels, got "
                    f"{len(of_images[name])}"
                )
        if options.std is not None and min(options.std) <= 0:
            raise UsageError(f"--std must be positive, got {min(options.std)}")
    elif options.calibrate.exists():
        given = [name for name, value in of_images.items() if value is not None]
        if given:
            raise UsageError(f"--{given[0]} belongs to a folder of images, and {options.calibrate} is a file")
    for name, states in (("weights", options.weights), ("activations", options.activations)):
        try:
            States(count=states, signed=False)
        except ConfigError as error:
            raise UsageError(f"--{name}: {error}") from error
    return ConversionConfig(
        weights=options.weights, activations=options.activations, norm=Kept(options.norm or Kept.KEEP.value),
        rounding=Rounding(options.rounding),
    )  # fmt: skip


def _images(folder: Path, size: tuple[int, ...]) -> "tuple[Tensor, ...]":
    """The images below a folder, uint8 N x C x H x W."""
    import torch

    suffixes = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in suffixes]
    if not files:
        raise DataError(f"{folder} holds no images ({', '.join(suffixes)}); pass a folder that does")
    chosen = files[:: max(1, len(files) // MOST)][:MOST]
    read = [read_image(path, size, np.dtype(np.uint8), resize=True) for path in chosen]
    for what in dict.fromkeys(what for _, lost in read for what in lost):
        places = [path for path, (_, lost) in zip(chosen, read, strict=True) if what in lost]
        note(f"{places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''}: {what}")
    return (torch.from_numpy(np.stack([array for array, _ in read]).astype(np.uint8)),)


def _arrays(path: Path, network: "nn.Module") -> "tuple[Tensor, ...]":
    """The arrays of a file, one for each parameter of `forward`."""
    import torch

    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} is no folder and no {' or '.join(SUFFIXES)} file; pass one")
    found = read_arrays(path)
    names = [name for name in inspect.signature(network.forward).parameters if name in found]
    ordered = {name: found[name] for name in names} if len(names) == len(found) else found
    for name, array in ordered.items():
        where = f"{path}, array {name!r}," if name else str(path)
        if array.dtype.kind not in "fiu" or array.ndim < 2 or not array.size:
            raise DataError(
                f"{where} must be numbers, samples x the shape of an input, got {array.dtype} {list(array.shape)}; "
                "save a batch of at least one"
            )
        if len(array) != len(next(iter(ordered.values()))):
            told = ", ".join(f"{len(one)} of {other}" for other, one in ordered.items())
            raise DataError(f"{path} must hold as many samples of every input, got {told}; save as many of each")
    return tuple(
        torch.from_numpy(
            np.ascontiguousarray(array[:MOST], np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("="))
        )
        for array in ordered.values()
    )


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(part.isdecimal() and int(part) for part in text.split("x"))
    if len(sizes) != 3 or not all(sizes):
        raise argparse.ArgumentTypeError(f"must be channels, height and width, as 3x224x224, got {text!r}")
    return sizes


def _numbers(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be numbers with commas between, got {text!r}") from error
    if not all(map(math.isfinite, found)):
        raise argparse.ArgumentTypeError(f"must be finite numbers, got {text!r}")
    return found
