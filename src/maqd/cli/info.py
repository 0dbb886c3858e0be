"""`maqd info`."""

import json
from dataclasses import asdict

from maqd.cli.options import Options, some_path
from maqd.cli.text import table
from maqd.graph import container
from maqd.graph.summary import summarize


def command(arguments: list[str]) -> int:
    """Run `maqd info`; the exit status."""
    parser = Options(
        usage="maqd info GRAPH [--text] [--json]",
        description="Print the layers of a .maqd file: states, accumulators, bytes, multiplications.",
    )
    parser.add_argument("graph", metavar="GRAPH", type=some_path, help="a .maqd file")
    parser.add_argument("--text", action="store_true", help="print the graph instead, one line a node")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    graph = container.load(options.graph)
    summary, size = summarize(graph), options.graph.stat().st_size
    totals = {
        "file_bytes": size,
        "weights": summary.weights,
        "weight_bytes": summary.weight_bytes,
        "weight_bound_bytes": summary.weight_bound,
        "threshold_bytes": summary.threshold_bytes,
        "bias_bytes": summary.bias_bytes,
        "nonzero_weights": summary.nonzero_ratio,
        "macs": summary.macs,
    }
    if options.json:
        labels = {one.output: list(one.names) for one in graph.metadata.labels}
        layers = [asdict(layer) for layer in summary.layers]
        print(json.dumps({"graph": str(options.graph), **totals, "labels": labels, "layers": layers}))
        return 0
    if options.text:
        print(graph)
        return 0
    print(
        table(
            ("layer", "operation", "output", "codes", "fits", "M_w", "M_a", "weights", "R_w", "bytes", "MACs"),
            [
                (
                    layer.name,
                    layer.operation,
                    "x".join(map(str, layer.shape)),
                    f"{layer.low}..{layer.high}",
                    layer.accumulator,
                    layer.weight_states,
                    layer.act_states,
                    layer.weights or None,
                    layer.nonzero / layer.weights if layer.weights else None,
                    layer.bytes or None,
                    layer.macs or None,
                )
                for layer in summary.layers
            ],
        )
    )
    print(
        f"\n{size:,} bytes: {summary.weight_bytes:,} of {summary.weights:,} weights "
        f"({summary.weight_bound:,.0f} bytes of information), {summary.threshold_bytes:,} of thresholds, "
        f"{summary.bias_bytes:,} of biases; R_w {summary.nonzero_ratio:.3f}; {summary.macs:,} multiply-adds an image"
    )
    return 0
