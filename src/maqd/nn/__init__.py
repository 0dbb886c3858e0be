"""Layers, quantizers and normalizations of MaQD networks, in PyTorch."""

from maqd.nn.activation import NormActivation, QuantActivation
from maqd.nn.config import Affine, Norm, Override, Profile, QuantConfig, Quantizer, Surrogate
from maqd.nn.layers import GlobalSumPool, IntegerInput, QuantConv1d, QuantConv2d, QuantLinear
from maqd.nn.norm import BatchNorm, LayerBatchNorm, LayerNorm, Normalization, make_norm

__all__ = [
    "Affine",
    "BatchNorm",
    "GlobalSumPool",
    "IntegerInput",
    "LayerBatchNorm",
    "LayerNorm",
    "Norm",
    "NormActivation",
    "Normalization",
    "Override",
    "Profile",
    "QuantActivation",
    "QuantConfig",
    "QuantConv1d",
    "QuantConv2d",
    "QuantLinear",
    "Quantizer",
    "Surrogate",
    "make_norm",
]
