"""`maqd check`."""

import argparse
import json
from dataclasses import asdict

from maqd.cli.options import Options
from maqd.errors import ConfigError
from maqd.settings.functions import import_function


def command(arguments: list[str]) -> int:
    """Run `maqd check`; the exit status: 1 if the network cannot be lowered."""
    parser = Options(
        usage="maqd check PACKAGE.MODULE:FUNCTION --example SHAPE[,SHAPE ...] [--json]",
        description="Say what stands between a network and its integer graph, before it is trained.",
    )
    parser.add_argument("network", metavar="PACKAGE.MODULE:FUNCTION", help="returns the network, without arguments")
    parser.add_argument(
        "--example",
        metavar="SHAPE",
        type=_shapes,
        required=True,
        help="shape of a batch of uint8 inputs, as 1x3x32x32; one for each input, with commas between",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)

    import torch

    from maqd.lowering import check

    build, remedy = import_function(options.network), "name a function that builds a network without arguments"
    try:
        network = build()
    except Exception as error:  # whatever the person's own code raises
        raise ConfigError(f"{options.network} fails: {type(error).__name__}: {error}; {remedy}") from error
    if not isinstance(network, torch.nn.Module):
        raise ConfigError(f"{options.network} must return a torch.nn.Module, got {type(network).__name__}; {remedy}")
    refusals = check(network, tuple(torch.zeros(shape, dtype=torch.uint8) for shape in options.example))
    if options.json:
        print(json.dumps({"refusals": [asdict(refusal) for refusal in refusals]}))
    elif refusals:
        print("\n".join(map(str, refusals)))
    else:
        print(f"{options.network} can be lowered")
    return 1 if refusals else 0


def _shapes(text: str) -> list[tuple[int, ...]]:
    """1x3x32x32,1x4 as two shapes.

    Raises:
        argparse.ArgumentTypeError: A size is no positive number.
    """
    shapes = [tuple(size.isdecimal() and int(size) for size in part.split("x")) for part in text.split(",")]
    if not all(size for shape in shapes for size in shape):
        raise argparse.ArgumentTypeError(f"must be sizes with x between, as 1x3x32x32, got {text!r}")
    return shapes
