"""Networks by name."""

from collections.abc import Callable
from functools import partial

from torch import nn

from maqd.models.preact_resnet import PreActResNet, ResNetPlan
from maqd.models.strided import StridedCNN, StridedPlan
from maqd.models.vgg import VGG, VGGPlan
from maqd.nn.factory import LayerFactory
from maqd.nn.rounding import set_rounding
from maqd.settings.model import Architecture, ModelConfig

_NETWORKS: dict[Architecture, Callable[..., nn.Module]] = {
    Architecture.VGG11: partial(VGG, VGGPlan.VGG11),
    Architecture.VGG16: partial(VGG, VGGPlan.VGG16),
    Architecture.VGG19: partial(VGG, VGGPlan.VGG19),
    Architecture.VGG_NARROW: partial(VGG, VGGPlan.NARROW),
    Architecture.DIGITS: partial(VGG, VGGPlan.DIGITS),
    Architecture.MICRO: partial(StridedCNN, StridedPlan.MICRO),
    Architecture.PREACT_RESNET18: partial(PreActResNet, ResNetPlan.RESNET18),
    Architecture.PREACT_RESNET34: partial(PreActResNet, ResNetPlan.RESNET34),
    Architecture.PREACT_RESNET50: partial(PreActResNet, ResNetPlan.RESNET50),
    Architecture.PREACT_RESNET_NARROW: partial(PreActResNet, ResNetPlan.NARROW),
    Architecture.PREACT_RESNET8: partial(PreActResNet, ResNetPlan.RESNET8),
    Architecture.PREACT_RESNET20: partial(PreActResNet, ResNetPlan.RESNET20),
}


def build_model(config: ModelConfig, *, in_channels: int, num_classes: int, image_size: int) -> nn.Module:
    """The network of a configuration: uint8 N x in_channels x image_size x image_size -> logits N x num_classes.

    Raises:
        ConfigError: An image too small for the network, or states that do not fit exact accumulation.
    """
    network = _NETWORKS[config.architecture](
        LayerFactory(quant=config.quant),
        width=config.width,
        in_channels=in_channels,
        num_classes=num_classes,
        image_size=image_size,
    )
    set_rounding(network, config.quant.rounding)
    return network
