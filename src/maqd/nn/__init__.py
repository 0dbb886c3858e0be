"""Layers, quantizers and normalizations of MaQD networks, in PyTorch."""

from maqd.nn.activation import NormActivation, QuantActivation
from maqd.nn.factory import LayerFactory, grid_of, hard_sigmoid, linear_quantizer
from maqd.nn.fitted import FittedSteps
from maqd.nn.input_grid import Values
from maqd.nn.inputs import IntegerInput
from maqd.nn.layers import (
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantConvTranspose3d,
    QuantLinear,
)
from maqd.nn.neurons import IntegrateFire, set_steps
from maqd.nn.norm import (
    BatchNorm,
    ChannelMap,
    ExtendedBatchNorm,
    LayerBatchNorm,
    LayerNorm,
    LevelledLayerBatchNorm,
    Normalization,
    make_norm,
)
from maqd.nn.pooling import GlobalSumPool, MaxPool2d
from maqd.nn.quantizers import RoundClip, ThresholdQuantizer, WeightQuantizer
from maqd.nn.rounding import set_rounding
from maqd.settings.quantization import (
    ActMethod,
    Affine,
    Norm,
    Override,
    Profile,
    QuantConfig,
    Quantizer,
    Surrogate,
    WeightMethod,
)

__all__ = [
    "ActMethod",
    "Affine",
    "BatchNorm",
    "ChannelMap",
    "ExtendedBatchNorm",
    "FittedSteps",
    "GlobalSumPool",
    "IntegerInput",
    "IntegrateFire",
    "LayerBatchNorm",
    "LayerFactory",
    "LayerNorm",
    "LevelledLayerBatchNorm",
    "MaxPool2d",
    "Norm",
    "NormActivation",
    "Normalization",
    "Override",
    "Profile",
    "QuantActivation",
    "QuantConfig",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConv3d",
    "QuantConvTranspose1d",
    "QuantConvTranspose2d",
    "QuantConvTranspose3d",
    "QuantLinear",
    "Quantizer",
    "RoundClip",
    "Surrogate",
    "ThresholdQuantizer",
    "Values",
    "WeightMethod",
    "WeightQuantizer",
    "grid_of",
    "hard_sigmoid",
    "linear_quantizer",
    "make_norm",
    "set_rounding",
    "set_steps",
]
