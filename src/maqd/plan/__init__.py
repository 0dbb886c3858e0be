"""From a graph to steps with places in memory."""

from maqd.plan.planner import channels_first, make_plan
from maqd.plan.steps import (
    STAGE_BYTES,
    AddStep,
    Axis,
    Buffer,
    ConcatStep,
    ConvStep,
    Element,
    Links,
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
    "STAGE_BYTES",
    "AddStep",
    "Axis",
    "Buffer",
    "ConcatStep",
    "ConvStep",
    "Element",
    "Links",
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
