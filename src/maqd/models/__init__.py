"""Networks of MaQD layers."""

from torch import nn

from maqd.models.build import LayerFactory
from maqd.models.config import Architecture, ModelConfig
from maqd.models.preact_resnet import PreActResNet, ResNetPlan
from maqd.models.vgg import VGG, VGGPlan

__all__ = ["VGG", "Architecture", "LayerFactory", "ModelConfig", "PreActResNet", "ResNetPlan", "VGGPlan", "build_model"]

_VGG = {
    Architecture.VGG11: VGGPlan.VGG11,
    Architecture.VGG16: VGGPlan.VGG16,
    Architecture.VGG19: VGGPlan.VGG19,
    Architecture.VGG_NARROW: VGGPlan.NARROW,
    Architecture.DIGITS: VGGPlan.DIGITS,
}
_RESNET = {
    Architecture.PREACT_RESNET18: ResNetPlan.RESNET18,
    Architecture.PREACT_RESNET34: ResNetPlan.RESNET34,
    Architecture.PREACT_RESNET50: ResNetPlan.RESNET50,
    Architecture.PREACT_RESNET_NARROW: ResNetPlan.NARROW,
}


def build_model(config: ModelConfig, *, in_channels: int, num_classes: int, image_size: int) -> nn.Module:
    """The network of a configuration: uint8 N x in_channels x image_size x image_size -> logits N x num_classes.

    Raises:
        ConfigError: An image too small for the network, or states that do not fit exact accumulation.
    """
    layers = LayerFactory(quant=config.quant)
    if config.architecture in _VGG:
        return VGG(
            _VGG[config.architecture],
            layers,
            width=config.width,
            in_channels=in_channels,
            num_classes=num_classes,
            image_size=image_size,
        )
    return PreActResNet(
        _RESNET[config.architecture],
        layers,
        width=config.width,
        in_channels=in_channels,
        num_classes=num_classes,
        image_size=image_size,
    )
