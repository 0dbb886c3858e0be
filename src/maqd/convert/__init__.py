"""Float networks of PyTorch's own layers as networks of few states.

`maqd.convert(network, example)` works beside `from maqd.convert import ...`: the package can be called.
"""

import sys
import types
from typing import Any

from maqd.convert.calibration import Agreement, LayerAgreement
from maqd.convert.convert import Converted, convert
from maqd.convert.report import ConversionError, Report, Row
from maqd.settings.conversion import Centring, ConversionConfig, Kept, Rounding

__all__ = [
    "Agreement",
    "Centring",
    "ConversionConfig",
    "ConversionError",
    "Converted",
    "Kept",
    "LayerAgreement",
    "Report",
    "Rounding",
    "Row",
    "convert",
]


class _Callable(types.ModuleType):
    """Importing a package sets an attribute of its parent, here in place of the function of the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Converted:
        return convert(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
