"""`maqd info`."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from maqd.cli.graphs import open_file
from maqd.cli.options import Options, UsageError, some_path
from maqd.cli.text import table
from maqd.errors import MaqdError
from maqd.export.c99 import Strategy, Target
from maqd.export.c99.program import make_program
from maqd.graph import Graph
from maqd.graph.container import graph_of
from maqd.graph.envelope import LANGUAGE
from maqd.graph.summary import summarize
from maqd.language.file import model_of
from maqd.language.model import LanguageModel
from maqd.settings.tree import to_plain
from maqd.spiking.hardware import Hardware, demands


def command(arguments: list[str]) -> int:
    """Run `maqd info`; the exit status."""
    parser = Options(
        usage="maqd info GRAPH [--text | --hardware NAME] [--json]",
        description="Print the layers of a .maqd file: states, accumulators, bytes, multiplications.",
    )
    parser.add_argument("graph", metavar="GRAPH", type=some_path, help="a .maqd file")
    parser.add_argument("--text", action="store_true", help="print the graph instead, one line a node")
    parser.add_argument(
        "--hardware",
        choices=[hardware.value for hardware in Hardware],
        help="print what a neuromorphic chip must offer: bits, thresholds, neurons, connections",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    if options.text and options.hardware is not None:
        raise UsageError("--text prints the graph and --hardware what a chip needs for it; give one of them")
    reader = open_file(options.graph)
    if options.hardware is not None:
        _hardware(graph_of(reader), options)
        return 0
    if reader.content() == LANGUAGE:
        return _language(model_of(reader), options.graph, as_json=options.json)
    graph = graph_of(reader)
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
    ram = _ram(graph)
    if options.json:
        labels = {one.output: list(one.names) for one in graph.metadata.labels}
        layers = [asdict(layer) for layer in summary.layers]
        print(
            json.dumps(
                {
                    "graph": str(options.graph),
                    **totals,
                    "c99_ram_bytes": ram,
                    "labels": labels,
                    "metadata": {key: value for key, value in asdict(graph.metadata).items() if key != "labels"},
                    "layers": layers,
                }
            )
        )
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
        f"{summary.bias_bytes:,} of biases; R_w {summary.nonzero_ratio:.3f}; {summary.macs:,} multiply-adds a sample"
    )
    if ram is not None:
        print(f"{ram:,} bytes of RAM in a C99 program (balanced)")
    print("\n".join(_ends(graph)))
    return 0


def _language(model: LanguageModel, path: Path, *, as_json: bool) -> int:
    """A language model: its sizes and its maps."""
    totals = {"file_bytes": path.stat().st_size, "weights": model.weights, "weight_bytes": model.weight_bytes}
    known = {"vocabulary": model.vocabulary, "context": model.context, "act_states": model.act_states}
    maps = [
        {
            "name": name,
            "shape": list(shape),
            "states": found.weight.states.count,
            "exponent": found.exponent,
            "bytes": found.weight.data.nbytes,
        }
        for name, found, shape in model.maps()
    ]
    if as_json:
        sizes = to_plain(model.config)
        print(json.dumps({"model": str(path), **totals, **known, "transformer": sizes, "maps": maps}))
        return 0
    rows = [
        (one["name"], "x".join(map(str, one["shape"])), one["states"], one["exponent"], one["bytes"]) for one in maps
    ]
    print(table(("map", "shape", "M_w", "exponent", "bytes"), rows))
    print(
        f"\n{totals['file_bytes']:,} bytes: {model.weight_bytes:,} of {model.weights:,} weights; {model.config.layers} "
        f"blocks, context {model.context}, {model.vocabulary} tokens, {model.act_states} activation states"
    )
    return 0


def _hardware(graph: Graph, options: argparse.Namespace) -> None:
    demand = demands(graph)
    if options.json:
        totals = {"neurons": demand.neurons, "pools": demand.pools, "steps": demand.steps}
        layers = [asdict(layer) for layer in demand.layers]
        print(json.dumps({"graph": str(options.graph), "hardware": options.hardware, **totals, "layers": layers}))
        return
    headings = (
        "layer", "neurons", "fan-in", "weight bits", "bias bits", "state bits", "V", "biases", "spikes", "steps",
    )  # fmt: skip
    rows = [
        (
            layer.name,
            layer.neurons,
            layer.fan_in,
            layer.weight_bits or None,
            layer.bias_bits,
            layer.state_bits,
            layer.threshold or None,
            layer.thresholds or None,
            layer.spikes or None,
            f"{layer.start}..{layer.stop - 1}" if layer.spikes else None,
        )
        for layer in demand.layers
    ]
    print(table(headings, rows))
    connections = sum(layer.connections for layer in demand.layers)
    print(
        f"\n{len(demand.layers)} layers, {demand.neurons:,} neurons that fire, {demand.pools:,} ORs of spikes, "
        f"{connections:,} connections if none share a weight; {demand.steps} steps a sample"
    )


def _ram(graph: Graph) -> int | None:
    """Bytes of tensors and scratch memory in a C99 program; None where there is none for this network."""
    try:
        return make_program(graph, Strategy.BALANCED, Target.GENERIC).arena
    except MaqdError:
        return None


def _ends(graph: Graph) -> Iterator[str]:
    """What goes in and comes out, and what else the file says."""
    for node in graph.inputs:
        how = "quantized from floats" if node.border is not None else f"code = stored - {node.zero}"
        yield f"input {node.key}: {node.storage.value} {'x'.join(map(str, node.shape))}, {how}"
    for node in graph.outputs:
        kind, labels = graph.types[node.name], graph.labels(node.key)
        divisor = f" / {node.divisor}" if node.divisor != 1 else ""
        classes = f"; classes {', '.join(labels[:10])}{', ...' if len(labels) > 10 else ''}" if labels else ""
        shape = "x".join(map(str, kind.shape))
        yield f"output {node.key}: {shape}, value = code * 2^{kind.exponent}{divisor}{classes}"
    metadata = graph.metadata
    for what, value in (
        ("images", "x".join(map(str, metadata.image_size))),
        ("channel order", metadata.channel_order),
        ("float accuracy", "" if metadata.float_accuracy is None else f"{100 * metadata.float_accuracy:.2f}%"),
        ("licence", metadata.licence),
        ("provenance", metadata.provenance),
    ):
        if value:
            yield f"{what}: {value}"
