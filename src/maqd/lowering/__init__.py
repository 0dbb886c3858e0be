"""The bridge from networks of `maqd.nn` layers to integer graphs."""

from maqd.lowering.engine import TorchEngine
from maqd.lowering.lower import Lowered, check, lower
from maqd.lowering.refusals import Refusal

__all__ = ["Lowered", "Refusal", "TorchEngine", "check", "lower"]
