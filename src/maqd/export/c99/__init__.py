"""A network as a self-contained C99 program: docs/microcontroller.md."""

from maqd.export.c99.examples import Example
from maqd.export.c99.program import Strategy
from maqd.export.c99.project import Exported, export_c99, save_c99
from maqd.export.c99.targets import Target

__all__ = ["Example", "Exported", "Strategy", "Target", "export_c99", "save_c99"]
