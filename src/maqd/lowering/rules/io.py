"""Where data enters the graph."""

from maqd.graph import Input
from maqd.lowering.builder import Codes, Raw, Rules, Step
from maqd.nn import IntegerInput


def integer_input(step: Step, x: Codes | Raw, module: IntegerInput) -> Codes:
    """`IntegerInput`: the graph's input."""
    if not isinstance(x, Raw):
        step.refuse("an input layer takes the raw input", "use one IntegerInput, first")
    if any(isinstance(node, Input) for node in step.builder.nodes):
        step.refuse("a graph has one input", "lower a module whose forward() takes one tensor")
    return step.put(Input(name=step.name, inputs=(), shape=x.shape, exponent=module.grid.exponent))


RULES = Rules(modules={IntegerInput: integer_input}, functions={})
