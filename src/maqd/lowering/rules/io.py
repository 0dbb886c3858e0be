"""Where data enters the graph."""

from maqd.graph import Input, Storage
from maqd.lowering.builder import Codes, Raw, Rules, Step
from maqd.nn import IntegerInput


def integer_input(step: Step, x: Codes | Raw, module: IntegerInput) -> Codes:
    """`IntegerInput`: an input of the graph."""
    if not isinstance(x, Raw):
        step.refuse("an input layer takes the raw input", "use one IntegerInput, first")
    if any(isinstance(node, Input) and node.key == x.name for node in step.builder.nodes):
        step.refuse(f"{x.name!r} enters the graph twice", "call IntegerInput once and use its result again")
    if module.storage is Storage.F32 and module.border is None:
        step.refuse("it does not know the range of its floats", "call fit(loader) or pass a border")
    return step.put(
        Input(
            name=step.name,
            inputs=(),
            key=x.name,
            shape=x.shape,
            grid=module.grid,
            storage=module.storage,
            zero=module.zero,
            border=module.border,
        )
    )


RULES = Rules(modules={IntegerInput: integer_input}, functions={})
