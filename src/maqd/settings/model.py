"""What a model is built from."""

import enum
import math
from dataclasses import dataclass, field

from maqd.errors import ConfigError
from maqd.settings.language import TransformerConfig
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
    LLAMA = "llama"
    """A decoder of text, of the sizes of `transformer`."""


class Shortcut(enum.Enum):
    """How the stream of a pre-activation residual network changes its width and size."""

    STRIDED = "strided"
    """A 1x1 convolution of every other position, of the codes that the branch reads."""
    POOLED = "pooled"
    """A 1x1 convolution of their averages over 2x2 positions."""
    FINE = "fine"
    """The same of codes with a normalization and states of their own, in place of those that the branch reads."""


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """A float network of PyTorch's layers, which `function` returns, as one of few states.

    Args:
        enabled: Whether it is converted (`maqd.convert`) before training starts, along training samples (init.batches),
            with the states of `quant`; norm=bn keeps its batch normalizations. With quant.rounding=false it is trained
            as it is: a float phase, which a converted run starts from with init.run.
        state: File of its state, .safetensors or as torch.save writes it; null takes the network as it is returned.
        mean: Of uint8 images, which the network gets as (pixels / 255 - mean) / std: one a channel; empty for 0.
        std: Likewise, positive; empty for 1.
    """

    enabled: bool = False
    state: str | None = None
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.enabled and (self.state is not None or self.mean or self.std):
            raise ConfigError("model.convert has options and is not enabled; set model.convert.enabled to true")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A network without its data: image size, channels and classes come from the data set.

    Args:
        architecture: Which network.
        function: package.module:function that builds the network in place of `architecture`. It is given what it has
            parameters for: quant, width, shortcut, num_classes, shapes (of a sample of each input), in_channels and
            image_size.
        width: Multiplier of every hidden width.
        quant: How its layers are quantized.
        shortcut: How a residual network's stream changes its width; others have none.
        transformer: Sizes of a decoder; others have none.
        convert: Whether `function` returns a float network, and how that is converted.
    """

    architecture: Architecture = Architecture.DIGITS
    function: str | None = None
    width: float = 1.0
    quant: QuantConfig = field(default_factory=QuantConfig)
    shortcut: Shortcut = Shortcut.STRIDED
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    convert: ConvertConfig = field(default_factory=ConvertConfig)

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise ConfigError(f"width must be a positive number, got {self.width!r}; 1 is the whole network")
        if self.convert.enabled and self.function is None:
            raise ConfigError(
                f"model.convert takes a network of your own, and {self.architecture.value} has few states; name "
                "one with --model package.module:function"
            )
        own = self.function is not None or self.architecture.value.startswith("preact_resnet")
        if self.shortcut is not Shortcut.STRIDED and not own:
            raise ConfigError(
                f"{self.architecture.value} has no shortcuts, got shortcut={self.shortcut.value}; leave it out"
            )
        if self.architecture is not Architecture.LLAMA and self.transformer != TransformerConfig():
            raise ConfigError(
                f"{self.architecture.value} takes no model.transformer, got {self.transformer}; leave it out, or set "
                "model.architecture to llama"
            )
