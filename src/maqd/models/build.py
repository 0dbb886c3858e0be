"""Networks by name."""

import inspect
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial

from torch import nn

from maqd.errors import ConfigError
from maqd.models.language import LanguageNetwork
from maqd.models.preact_resnet import PreActResNet, ResNetPlan
from maqd.models.strided import StridedCNN, StridedPlan
from maqd.models.vgg import VGG, VGGPlan
from maqd.nn import NormActivation, QuantConv1d, QuantConv2d, QuantLinear
from maqd.nn.factory import LayerFactory
from maqd.nn.rounding import set_rounding
from maqd.settings.functions import import_function
from maqd.settings.model import Architecture, ModelConfig, Shortcut
from maqd.settings.quantization import UNCHANGED, QuantConfig

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
    make = _NETWORKS[config.architecture]
    if config.shortcut is not Shortcut.STRIDED:  # which the configuration allows for residual networks only
        make = partial(make, shortcut=config.shortcut)
    network = make(
        LayerFactory(quant=config.quant),
        width=config.width,
        in_channels=in_channels,
        num_classes=num_classes,
        image_size=image_size,
    )
    set_rounding(network, config.quant.rounding)
    return network


def build_language(config: ModelConfig, *, vocabulary: int, context: int) -> nn.Module:
    """The decoder of a configuration: tokens N x T -> scores N x vocabulary x T, T up to the context.

    Raises:
        ConfigError: Sizes or states that do not go together.
    """
    layers = LayerFactory(quant=config.quant)
    network = LanguageNetwork(config.transformer, layers, vocabulary=vocabulary, context=context)
    set_rounding(network, config.quant.rounding)
    return network


def build_from(config: ModelConfig, **offered: object) -> nn.Module:
    """The network that the function of a configuration returns.

    Args:
        config: With `function`; its `quant`, `width` and `shortcut` are offered to it.
        offered: What else it may have parameters for.

    Raises:
        ConfigError: There is no such function; it needs something that is not offered, fails, or returns no network;
            or the configuration sets what it has no parameter for.
    """
    place = str(config.function)
    function = import_function(place)
    parameters = inspect.signature(function).parameters
    everything = {"quant": config.quant, "width": config.width, "shortcut": config.shortcut, **offered}
    for option, standard in (("quant", QuantConfig()), ("width", 1.0), ("shortcut", Shortcut.STRIDED)):
        if option not in parameters and everything[option] != standard:
            raise ConfigError(
                f"{place} has no parameter {option!r}, so model.{option} would change nothing; add one, or leave the "
                "option unset"
            )
    for name, parameter in parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if needed and (name not in everything or parameter.kind is parameter.POSITIONAL_ONLY):
            raise ConfigError(
                f"{place} needs an argument {name!r}, and gets {', '.join(everything)}; give it a default, or name a "
                "function that builds a network from these"
            )
    try:
        network = function(**{name: value for name, value in everything.items() if name in parameters})
    except (Exception, SystemExit) as error:  # whatever the caller's own code raises
        raise ConfigError(
            f"{place} fails: {type(error).__name__}: {error}; name a function that builds a network"
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{place} must return a torch.nn.Module, got {type(network).__name__}; name a function that builds one"
        )
    set_rounding(network, config.quant.rounding)
    return network


def check_overrides(quant: QuantConfig, network: nn.Module) -> None:
    """Check that each override of a quantization changes the states of a layer.

    Args:
        quant: The quantization that the network was built with.
        network: The network.

    Raises:
        ConfigError: A pattern matches no layer that has the states that it sets.
    """
    modules = list(network.named_modules())
    weights = [name for name, module in modules if isinstance(module, QuantConv1d | QuantConv2d | QuantLinear)]
    activations = [name for name, module in modules if isinstance(module, NormActivation)]
    for override in quant.overrides:
        for option, changes, names in (
            ("weight_states", override.weight_states != UNCHANGED, weights),
            ("act_states", override.act_states != UNCHANGED, activations),
            ("act_step", override.act_step is not None, activations),
        ):
            if changes and not any(fnmatchcase(name, override.pattern) for name in names):
                raise ConfigError(
                    f"model.quant.overrides: the pattern {override.pattern!r} sets {option} and matches none of the "
                    f"layers that have them ({', '.join(names)}); correct the pattern or remove it"
                )
