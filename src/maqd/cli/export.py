"""`maqd export`."""

import argparse
import enum
import json
import re
from typing import Any

import numpy as np

from maqd.cli.arguments import take_settings
from maqd.cli.graphs import load_graph, open_file
from maqd.cli.options import Options, UsageError, some_path
from maqd.cli.verify import inputs_of, open_against
from maqd.export.c99 import Example, Strategy, Target, export_c99, save_c99
from maqd.export.c99.project import VECTORS, is_prefix
from maqd.export.gguf import Packing, save_gguf
from maqd.export.nir import Importer, nir_model, save_nir
from maqd.export.onnx.integer import Profile, save_onnx
from maqd.export.onnx.qonnx import Flavour, save_qonnx
from maqd.graph import Graph
from maqd.io.outputs import Artefact, check_output
from maqd.language.file import model_of
from maqd.runtime import inputs
from maqd.runtime.simulators import SPEC_READERS, NirEngine, installed
from maqd.runtime.verify import verify
from maqd.settings.training import EvalConfig


class Format(enum.Enum):
    """What a graph can be exported to."""

    ONNX = "onnx"
    QONNX = "qonnx"
    C99 = "c99"
    NIR = "nir"
    GGUF = "gguf"


ARTEFACTS = {
    Format.ONNX: Artefact.ONNX,
    Format.QONNX: Artefact.ONNX,
    Format.C99: Artefact.PROGRAM,
    Format.NIR: Artefact.NIR,
    Format.GGUF: Artefact.GGUF,
}
"""What each format writes."""

CHECKED = 20
"""Random samples on which a NIR file is compared in the simulators that are installed."""

BELONGS = {
    "profile": Format.ONNX,
    "importer": Format.NIR,
    "flavour": Format.QONNX,
    "type": Format.GGUF,
    **dict.fromkeys(("strategy", "target", "prefix", "flash", "ram", "example", "against", "whole_input"), Format.C99),
}
"""Options of one format only."""


def command(arguments: list[str]) -> int:
    """Run `maqd export`; the exit status."""
    parser = Options(
        usage="maqd export GRAPH --to {onnx,qonnx,c99,nir,gguf} -o PATH [--profile NAME | --flavour NAME | "
        "--importer NAME | --type NAME | --strategy NAME --target NAME ... [--example NAME] [--against RUN]] [--json] "
        "[--data.KEY VALUE ...]",
        description="Write a .maqd file in another format.",
    )
    parser.add_argument("graph", metavar="GRAPH", type=some_path, help="a .maqd file")
    parser.add_argument("--to", required=True, choices=[kind.value for kind in Format], help="the format")
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        required=True,
        type=some_path,
        help="the file to write; of C99 a new directory",
    )
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
    parser.add_argument(
        "--importer",
        choices=[importer.value for importer in Importer],
        help="of NIR: which simulators read it (spec: snnTorch, SpikingJelly, norse)",
    )
    parser.add_argument(
        "--type",
        choices=[packing.value for packing in Packing],
        help="of GGUF: how maps of language models are kept (tq2_0: three states in 2 bits; tq1_0: five in a byte)",
    )
    parser.add_argument(
        "--strategy",
        choices=[strategy.value for strategy in Strategy],
        help="of C99: what matters most (balanced)",
    )
    parser.add_argument("--target", choices=[target.value for target in Target], help="of C99: the processor (generic)")
    parser.add_argument("--prefix", metavar="NAME", help="of C99: what all names begin with (maqd)")
    parser.add_argument("--flash", metavar="BYTES", help="of C99: flash there is, as 65536 or 64K, if not the target's")
    parser.add_argument("--ram", metavar="BYTES", help="of C99: RAM there is, if not the target's")
    parser.add_argument(
        "--example",
        choices=[example.value for example in Example],
        help="of C99: also a minimal program, for a bare processor (runs in QEMU) or as an Arduino sketch",
    )
    parser.add_argument(
        "--whole-input",
        action="store_const",
        const=True,
        help="of C99: compute layer by layer on an input that is there as a whole, not row by row",
    )
    parser.add_argument(
        "--against",
        metavar="RUN",
        type=some_path,
        help="of C99: test samples of this run for the self-test; random ones else",
    )
    parser.add_allow_import()
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    data = take_settings(arguments, EvalConfig, "data.")
    options = parser.read(arguments)
    if data and options.against is None:
        raise UsageError(f"--{data[0][0]} belongs to --against RUN: without a run the images are random")
    kind = Format(options.to)
    for name, owner in BELONGS.items():
        if getattr(options, name) is not None and kind is not owner:
            raise UsageError(f"--{name.replace('_', '-')} belongs to --to {owner.value}, not to --to {kind.value}")
    if options.prefix is not None and not is_prefix(options.prefix):
        raise UsageError(f"--prefix must be a C identifier that begins with a letter, got {options.prefix!r}")
    check_output(options.output, ARTEFACTS[kind], inputs=[options.graph])
    if kind is Format.GGUF:
        return _gguf(options)
    graph = load_graph(options.graph)
    match kind:
        case Format.ONNX:
            how = options.profile or Profile.COMPATIBLE.value
            save_onnx(graph, options.output, Profile(how))
            found = {"kind": how, "bytes": options.output.stat().st_size}
        case Format.QONNX:
            how = options.flavour or Flavour.QUANT.value
            save_qonnx(graph, options.output, Flavour(how))
            found = {"kind": how, "bytes": options.output.stat().st_size}
        case Format.C99:
            found = _c99(graph, options, data)
        case Format.NIR:
            found = _nir(graph, options)
    if options.json:
        print(json.dumps({"output": str(options.output), "to": kind.value, **found}))
    else:
        sizes = {name.replace("_", " "): value for name, value in found.items() if isinstance(value, int)}
        numbers = ", ".join(f"{value:,} {name}" for name, value in sizes.items())
        print(f"{options.output}: {kind.value}, {found['kind']}, {numbers}")
        for line in found.get("compared", ()):
            print(line)
    return 1 if found.get("different") else 0


def _gguf(options: argparse.Namespace) -> int:
    model = model_of(open_file(options.graph))
    packing = Packing(options.type or Packing.TQ2_0.value)
    save_gguf(model, options.output, packing)
    size = options.output.stat().st_size
    if options.json:
        found = {"output": str(options.output), "to": Format.GGUF.value, "kind": packing.value, "bytes": size}
        print(json.dumps(found))
    else:
        print(f"{options.output}: {Format.GGUF.value}, {packing.value}, {size:,} bytes")
    return 0


def _nir(graph: Graph, options: argparse.Namespace) -> dict[str, Any]:
    importer = Importer(options.importer or Importer.SPEC.value)
    model = nir_model(graph, importer)
    save_nir(model, options.output)
    readers = SPEC_READERS if importer is Importer.SPEC else (importer,)
    there = [reader for reader in readers if installed(reader)]
    engines = [NirEngine(graph, reader, spec=importer is Importer.SPEC) for reader in there]
    lines = [
        f"not compared in {reader.value}, which is not installed; make setup-spiking setup-sinabs"
        for reader in readers
        if reader not in there
    ]
    different = 0
    if engines:
        result = verify(graph, engines, [inputs.random(graph, CHECKED)])
        for engine in result.engines:
            different += engine.different
            first = "" if engine.first is None else f"; first difference in {engine.first}"
            lines.append(
                f"{engine.name} on {CHECKED} random samples: {engine.values:,} integers in {engine.tensors} tensors, "
                f"{engine.different:,} different{first}"
            )
    if model.merges and {Importer.SPEC, Importer.NORSE, Importer.SINABS} & {importer}:
        lines.append(
            f"{model.merges[0]} adds up several edges: norse 1.1 and sinabs 3.1 have to be told the order of the nodes "
            "(docs/spiking.md)"
        )
    return {
        "kind": importer.value,
        "bytes": options.output.stat().st_size,
        "neurons": model.neurons,
        "threshold": model.threshold,
        "different": different,
        "compared": lines,
    }


def _c99(graph: Graph, options: argparse.Namespace, data: list[tuple[str, str]]) -> dict[str, Any]:
    samples = None
    if options.against is not None:
        run = open_against(graph, options.against, allow_import=options.allow_import)
        batches = inputs_of(run, data, VECTORS, allow_import=options.allow_import)
        samples = [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
    strategy = Strategy(options.strategy or Strategy.BALANCED.value)
    exported = export_c99(
        graph,
        strategy=strategy,
        target=Target(options.target or Target.GENERIC.value),
        prefix="maqd" if options.prefix is None else options.prefix,
        flash=_bytes("flash", options.flash),
        ram=_bytes("ram", options.ram),
        samples=samples,
        example=None if options.example is None else Example(options.example),
        by_rows=not options.whole_input,
    )
    save_c99(exported, options.output)
    whole = exported.program.whole
    return {
        "kind": strategy.value,
        "bytes_of_tables": exported.table_bytes,
        "bytes_of_RAM": exported.arena_bytes,
        **({"bytes_of_RAM_with_a_whole_input": whole.size + whole.given} if exported.program.by_rows else {}),
    }


def _bytes(name: str, text: str | None) -> int | None:
    """A size such as 65536, 64K or 1M."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)([KM]?)", text)
    if found is None:
        raise UsageError(f"--{name} must be a number of bytes such as 65536, 64K or 1M, got {text!r}")
    return int(found[1]) * {"": 1, "K": 1024, "M": 1024**2}[found[2]]
