"""Neurons that remember from frame to frame."""

from maqd.graph.memory import cell
from maqd.lowering.builder import Codes, Raw, Rules, Step
from maqd.nn import IntegrateFire
from maqd.numerics.states import Grid


def integrate_fire(step: Step, x: Codes | Raw, module: IntegrateFire) -> Codes:
    """`IntegrateFire`: a frame, with the potentials as an input and an output (`maqd.graph.memory`)."""
    source = step.codes(x)
    if not source.known or step.builder.sketch:
        return step.on_grid(Grid(low=0, high=1, exponent=0), known=source.known)
    if source.type.exponent != module.exponent:
        step.refuse(
            f"its unit is 2^{module.exponent}, and its input comes in units of 2^{source.type.exponent}",
            "build it with the step of the quantizer before it as its unit",
        )
    made = cell(step.name, source.source, source.type, module.neuron)
    for node in (made.before, *made.nodes):
        step.put(node, *(Codes(source=name, type=step.builder.types[name]) for name in node.inputs), wide=False)
    step.builder.remember(made.after, made.memory)
    return Codes(source=step.name, type=step.builder.types[step.name])


RULES = Rules(modules={IntegrateFire: integrate_fire}, functions={})
