"""From a graph to steps with places in memory."""

from maqd.plan.planner import channels_first, make_plan
from maqd.plan.steps import (
    AddStep,
    Axis,
    Buffer,
    ConcatStep,
    ConvStep,
    Element,
    Links,
    MoveStep,
    MultiplyStep,
    Plan,
    PoolStep,
    Quantization,
    QuantizeStep,
    Stage,
    Step,
    SumStep,
    TransposeStep,
)

__all__ = [
    "AddStep",
    "Axis",
    "Buffer",
    "ConcatStep",
    "ConvStep",
    "Element",
    "Links",
    "MoveStep",
    "MultiplyStep",
    "Plan",
    "PoolStep",
    "Quantization",
    "QuantizeStep",
    "Stage",
    "Step",
    "SumStep",
    "TransposeStep",
    "channels_first",
    "make_plan",
]
