"""Networks of MaQD layers."""

from maqd.models.build import build_from, build_language, build_model, check_overrides
from maqd.models.language import LanguageNetwork
from maqd.models.preact_resnet import PreActResNet, ResNetPlan
from maqd.models.strided import StridedCNN, StridedPlan
from maqd.models.vgg import VGG, VGGPlan
from maqd.nn.factory import LayerFactory
from maqd.settings.model import Architecture, ModelConfig, Shortcut

__all__ = [
    "VGG",
    "Architecture",
    "LanguageNetwork",
    "LayerFactory",
    "ModelConfig",
    "PreActResNet",
    "ResNetPlan",
    "Shortcut",
    "StridedCNN",
    "StridedPlan",
    "VGGPlan",
    "build_from",
    "build_language",
    "build_model",
    "check_overrides",
]
