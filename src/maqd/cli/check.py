"""`maqd check`."""

import argparse
import json
from dataclasses import asdict

from maqd.cli.options import Options, UsageError
from maqd.errors import ConfigError
from maqd.numerics.border import Storage
from maqd.settings.functions import split_name
from maqd.settings.model import ModelConfig

CLASSES = 10
"""For networks that take a number of classes, which does not matter here."""


def command(arguments: list[str]) -> int:
    """Run `maqd check`; the exit status: 1 if the network cannot be lowered."""
    parser = Options(
        usage="maqd check PACKAGE.MODULE:FUNCTION --example SHAPE[,SHAPE ...] [--json]",
        description="Say what stands between a network and its integer graph, before it is trained.",
    )
    parser.add_argument(
        "network", metavar="PACKAGE.MODULE:FUNCTION", help="builds the network, as maqd train --model does"
    )
    parser.add_argument(
        "--example",
        metavar="SHAPE",
        type=_shapes,
        required=True,
        help="shape of a batch of uint8 inputs, as 1x3x32x32, or 1x6:float32; one for each input, with commas between",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    try:
        split_name(options.network)
    except ConfigError as error:
        raise UsageError(str(error)) from error

    import torch

    from maqd.lowering import check
    from maqd.models import build_from
    from maqd.nn import IntegerInput

    shapes = tuple(shape[1:] for shape, _ in options.example)
    images = {"in_channels": shapes[0][0], "image_size": shapes[0][1]} if len(shapes[0]) == 3 else {}
    network = build_from(ModelConfig(function=options.network), num_classes=CLASSES, shapes=shapes, **images)
    for layer in network.modules():
        if isinstance(layer, IntegerInput) and layer.storage is Storage.F32 and layer.border is None:
            layer.fit([torch.zeros(2, 1)])  # training fits it; any range will do here
    example = tuple(torch.zeros(shape, dtype=getattr(torch, kind)) for shape, kind in options.example)
    refusals = check(network, example)
    if options.json:
        print(json.dumps({"refusals": [asdict(refusal) for refusal in refusals]}))
    elif refusals:
        print("\n".join(map(str, refusals)))
    else:
        print(f"{options.network} can be lowered")
    return 1 if refusals else 0


def _shapes(text: str) -> list[tuple[tuple[int, ...], str]]:
    """1x3x32x32,1x4:int16 as two shapes with their types.

    Raises:
        argparse.ArgumentTypeError: A size is no positive number.
    """
    found = []
    for part in text.split(","):
        sizes, _, kind = part.partition(":")
        shape = tuple(size.isdecimal() and int(size) for size in sizes.split("x"))
        if not all(shape) or kind not in ("", *(storage.value for storage in Storage)):
            raise argparse.ArgumentTypeError(f"must be sizes with x between, as 1x3x32x32 or 1x6:float32, got {text!r}")
        found.append((shape, kind or Storage.U8.value))
    return found
