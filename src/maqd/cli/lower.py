"""`maqd lower`."""

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from maqd.cli.options import Options, some_path
from maqd.cli.text import Counter, table
from maqd.graph import Metadata, container
from maqd.graph.summary import summarize
from maqd.io.outputs import Artefact, check_output
from maqd.numerics.fixedpoint import AffineForm

if TYPE_CHECKING:
    from maqd.training.runs import Run


def command(arguments: list[str]) -> int:
    """Run `maqd lower`; the exit status."""
    parser = Options(
        usage="maqd lower RUN -o FILE [--affine {auto,thresholds,fixed-point}] [--checkpoint {last,best}] "
        "[--float RUN] [--licence TEXT] [--note TEXT] [--allow-import] [--json]",
        description="Turn a trained network into an integer graph, prove it equal, and save it.",
    )
    parser.add_argument("run", metavar="RUN", type=some_path, help="directory of a run")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, type=some_path, help="the .maqd file to write")
    parser.add_argument(
        "--affine",
        choices=[form.value for form in AffineForm],
        default=AffineForm.AUTO.value,
        help="normalizations as thresholds, as a fixed-point map, or layer by layer as is cheaper (auto)",
    )
    parser.add_argument("--checkpoint", choices=["last", "best"], default="last", help="which checkpoint (last)")
    parser.add_argument(
        "--float",
        metavar="RUN",
        type=some_path,
        help="the run of the float network, whose accuracy the file names (the one that the run started from)",
    )
    parser.add_argument("--licence", metavar="TEXT", default="", help="of the weights, for the file")
    parser.add_argument("--note", metavar="TEXT", default="", help="put after the options of the run, for the file")
    parser.add_allow_import()
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    check_output(options.output, Artefact.GRAPH, inputs=[options.run])

    from maqd.lowering import lower
    from maqd.training.provenance import with_provenance
    from maqd.training.run_directory import Which
    from maqd.training.runs import open_run

    run = open_run(options.run, checkpoint=Which(options.checkpoint), allow_import=options.allow_import)
    if run.header.data.text:
        return _language(run, options.output, as_json=options.json)
    known = with_provenance(Metadata(), run.header, float_run=options.float, licence=options.licence, note=options.note)
    counter = Counter("proving", sys.stderr)
    begin = time.monotonic()
    try:
        lowered = lower(
            run.network,
            run.example,
            affine=AffineForm(options.affine),
            labels=run.header.data.class_names,
            progress=lambda name, done, total: counter.show(done, total, name),
        )
    finally:
        counter.clear()
    seconds = time.monotonic() - begin
    graph = replace(lowered.graph, metadata=replace(known, labels=lowered.graph.metadata.labels))
    container.save(graph, options.output)
    size, summary = options.output.stat().st_size, summarize(graph)
    if options.json:
        print(
            json.dumps(
                {
                    "run": str(options.run),
                    "output": str(options.output),
                    "bytes": size,
                    "weights": summary.weights,
                    "float_weight_bytes": 4 * summary.weights,
                    "weight_bound_bytes": summary.weight_bound,
                    "seconds": round(seconds, 3),
                    "activations": [asdict(report) for report in lowered.activations],
                }
            )
        )
        return 0
    print(
        table(
            ("activation", "form", "K", "bits of A", "bits of B", "values checked", "mismatches", "if rounded"),
            [
                (
                    report.name,
                    report.operation,
                    report.shift,
                    report.multiplier_bits,
                    report.offset_bits,
                    report.checked,
                    report.mismatches,
                    report.rounded_mismatches,
                )
                for report in lowered.activations
            ],
        )
    )
    print("if rounded: mismatches if the float32 scale and offset were rounded to multiples of 2^-K")
    print(
        f"\n{options.output}: {size:,} bytes for {summary.weights:,} weights ({summary.weight_bound:,.0f} bytes of "
        f"information, {4 * summary.weights:,} in float32), proved in {seconds:.1f} s"
    )
    return 0


def _language(run: "Run", output: Path, *, as_json: bool) -> int:
    """A language model: nothing has to be proved but that its sums fit."""
    from maqd.language.file import save
    from maqd.lowering.language import lower_language

    model = lower_language(run.network)
    save(model, output)
    bytes_written = output.stat().st_size
    if as_json:
        found = {"run": str(run.path), "output": str(output), "bytes": bytes_written}
        print(json.dumps({**found, "weights": model.weights, "weight_bytes": model.weight_bytes}))
    else:
        print(
            f"{output}: {bytes_written:,} bytes for {model.weights:,} weights ({model.weight_bytes:,} bytes packed, "
            f"{4 * model.weights:,} in float32); maqd generate {output} TEXT continues a text"
        )
    return 0
