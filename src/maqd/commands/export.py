"""`maqd export`."""

import enum
import json
from pathlib import Path

from maqd import container
from maqd.export.onnx import Profile, save_onnx
from maqd.export.qonnx import Flavour, save_qonnx
from maqd.options import Options, UsageError


class Target(enum.Enum):
    """What a graph can be exported to."""

    ONNX = "onnx"
    QONNX = "qonnx"


def command(arguments: list[str]) -> int:
    """Run `maqd export`; the exit status."""
    parser = Options(
        usage="maqd export GRAPH --to {onnx,qonnx} -o FILE [--profile NAME | --flavour NAME] [--json]",
        description="Write a .maqd file in another format.",
    )
    parser.add_argument("graph", metavar="GRAPH", type=Path, help="a .maqd file")
    parser.add_argument("--to", required=True, choices=[target.value for target in Target], help="the format")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, type=Path, help="the file to write")
    parser.add_argument(
        "--profile",
        choices=[profile.value for profile in Profile],
        help="of ONNX: compatible (opset 21, the default) or compact (opset 25, weights in 2 or 4 bits)",
    )
    parser.add_argument(
        "--flavour",
        choices=[flavour.value for flavour in Flavour],
        help="of QONNX: quant (Quant nodes, the default, for hls4ml) or multithreshold (for FINN)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    target = Target(options.to)
    if options.profile is not None and target is not Target.ONNX:
        raise UsageError(f"--profile belongs to --to onnx, not to --to {target.value}")
    if options.flavour is not None and target is not Target.QONNX:
        raise UsageError(f"--flavour belongs to --to qonnx, not to --to {target.value}")
    graph = container.load(options.graph)
    match target:
        case Target.ONNX:
            kind = options.profile or Profile.COMPATIBLE.value
            save_onnx(graph, options.output, Profile(kind))
        case Target.QONNX:
            kind = options.flavour or Flavour.QUANT.value
            save_qonnx(graph, options.output, Flavour(kind))
    size = options.output.stat().st_size
    if options.json:
        print(json.dumps({"output": str(options.output), "to": target.value, "kind": kind, "bytes": size}))
    else:
        print(f"{options.output}: {target.value}, {kind}, {size:,} bytes")
    return 0
