"""Writes docs/operations.md from the rules of all backends: `python docs/operations.py`; a test compares both."""

from pathlib import Path

from maqd.bench.conventional import CONVENTIONAL
from maqd.export.nir.network import NIR
from maqd.export.onnx.integer import ONNX
from maqd.export.onnx.qonnx import QONNX
from maqd.graph import NODES
from maqd.graph.rules import Refused, Rules
from maqd.plan.planner import PLAN
from maqd.spiking.network import SPIKING

PAGE = Path(__file__).with_name("operations.md")

BACKENDS: dict[str, Rules] = {
    "native engine and C99": PLAN,
    "ONNX": ONNX,
    "QONNX": QONNX,
    "conventional int8 (for timing)": CONVENTIONAL,
    "spikes": SPIKING,
    "NIR": NIR,
}
"""Columns of the table. NumPy computes every node itself: it is the definition."""

INTRODUCTION = """# Operations

Every kind of node of the integer graph, and which backend takes it. The NumPy engine takes all of them: what a node's
`compute` gives is the definition, and every other engine and export gives the same integers. docs/lowering.md says
which modules and functions of PyTorch become which nodes, docs/format.md what a file stores of each.
`python docs/operations.py` writes this page from the backends' tables of rules.
"""

NOTES = """
"yes" is about the kind of node. Single graphs are refused, with the node, the reason and the remedy, where numbers do
not fit: QONNX computes in float32 and takes codes below 2^24 and no float inputs; ONNX takes weights of at most 128
even or 255 odd states; the native engine takes no activation whose input can reach 2^31 - 1; spiking networks take
activations of equal steps, and maxima of the spikes of one activation; NIR takes activations of two states, one input
and one output (docs/spiking.md).
"""


def page() -> str:
    """The text of docs/operations.md."""
    reasons: list[str] = []

    def cell(rules: Rules, kind: type) -> str:
        entry = rules.entry(kind)
        if isinstance(entry, Refused):
            reasons.append(f"- {rules.backend}, `{kind.__name__}`: {entry.reason}; {entry.remedy}.")
        return "no" if entry is None or isinstance(entry, Refused) else "yes"

    rows = [f"| node | what it computes | {' | '.join(BACKENDS)} |", f"|---|---|{'---|' * len(BACKENDS)}"]
    for kind in NODES:
        summary = (kind.__doc__ or "").strip().splitlines()[0]
        rows.append(f"| `{kind.operation}` | {summary} | {' | '.join(cell(one, kind) for one in BACKENDS.values())} |")
    return "\n".join([INTRODUCTION, *rows, *([""] if reasons else []), *reasons, NOTES.rstrip(), ""])


if __name__ == "__main__":
    PAGE.write_text(page())
