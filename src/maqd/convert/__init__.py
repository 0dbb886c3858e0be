"""Float networks of PyTorch's own layers as networks of few states."""

from maqd.convert.calibration import Agreement, LayerAgreement
from maqd.convert.convert import Converted, convert
from maqd.convert.report import ConversionError, Report, Row
from maqd.settings.conversion import ConversionConfig, Kept

__all__ = [
    "Agreement",
    "ConversionConfig",
    "ConversionError",
    "Converted",
    "Kept",
    "LayerAgreement",
    "Report",
    "Row",
    "convert",
]
