"""What a model is built from."""

import enum
from dataclasses import dataclass, field

from maqd.settings.quantization import QuantConfig


class Architecture(enum.Enum):
    """The networks this package brings."""

    VGG11 = "vgg11"
    VGG16 = "vgg16"
    VGG19 = "vgg19"
    VGG_NARROW = "vgg_narrow"
    PREACT_RESNET18 = "preact_resnet18"
    PREACT_RESNET34 = "preact_resnet34"
    PREACT_RESNET50 = "preact_resnet50"
    PREACT_RESNET_NARROW = "preact_resnet_narrow"
    PREACT_RESNET8 = "preact_resnet8"
    PREACT_RESNET20 = "preact_resnet20"
    DIGITS = "digits"
    MICRO = "micro"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A network without its data: image size, channels and classes come from the data set.

    Args:
        architecture: Which network.
        function: package.module:function that builds the network in place of `architecture`. It is given what it has
            parameters for: quant, width, num_classes, shapes (of a sample of each input), in_channels and image_size.
        width: Multiplier of every hidden width.
        quant: How its layers are quantized.
    """

    architecture: Architecture = Architecture.DIGITS
    function: str | None = None
    width: float = 1.0
    quant: QuantConfig = field(default_factory=QuantConfig)
