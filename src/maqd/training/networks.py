"""The network of a run, and what its inputs take from the data."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from maqd.data import DataInfo
from maqd.errors import ConfigError
from maqd.lowering import check
from maqd.models import Architecture, build_from, build_language, build_model
from maqd.nn import IntegerInput
from maqd.nn.calling import Inputs, call, each
from maqd.numerics.border import Storage
from maqd.numerics.fixedpoint import AffineForm
from maqd.settings.model import ModelConfig
from maqd.settings.quantization import QuantConfig
from maqd.training.converted import converted_network


def network_of(config: ModelConfig, info: DataInfo) -> nn.Module:
    """The network of a configuration for some data.

    Raises:
        ConfigError: It cannot be built, or a function does not take an option that is set.
        DataError: The data do not fit the network.
    """
    if config.function is None and config.architecture is Architecture.LLAMA:
        if not info.text:
            raise ConfigError(
                f"{config.architecture.value} reads text, and the data has {info.takes}; set data.source to text and "
                "data.path to a file"
            )
        return build_language(config, vocabulary=info.num_classes, context=info.shape[0])
    if config.function is None:
        classes = info.num_classes
        if not classes:
            raise ConfigError(
                f"{config.architecture.value} is a classifier, and the data has no classes; name a network with "
                "--model package.module:function"
            )
        network = build_model(config, in_channels=info.in_channels, num_classes=classes, image_size=info.image_size)
    else:
        sizes = {"in_channels": info.in_channels, "image_size": info.image_size} if info.images else {}
        # Options of states are the conversion's, where there is one.
        wanted = replace(config, quant=QuantConfig()) if config.convert.enabled else config
        network = build_from(
            wanted, num_classes=info.num_classes, shapes=tuple(one.shape for one in info.inputs), **sizes
        )
        if config.convert.enabled:
            network = converted_network(config, info, network)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def example_of(info: DataInfo) -> tuple[Tensor, ...]:
    """A batch of one sample of zeros for each input."""
    return tuple(torch.zeros(1, *one.shape, dtype=getattr(torch, one.dtype)) for one in info.inputs)


def fit_inputs(network: nn.Module, batches: Callable[[], Iterator[Inputs]], where: str) -> None:
    """Sets the border of each float input that has none, so that the range of the training data takes all its codes.

    Args:
        network: Its `IntegerInput` layers must be called with the network's own inputs.
        batches: Passes over all training inputs.
        where: What the network is called, for messages.

    Raises:
        ConfigError: A layer gets something else than an input of the network, or no border expresses the range.
        DataError: The data are not finite.
    """
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, IntegerInput) and module.storage is Storage.F32 and module.border is None
    }
    if not layers:
        return
    places = _places(network, layers, next(batches()), where)
    for name, layer in layers.items():
        if name not in places:
            raise ConfigError(
                f"{name or 'the network'}: a float input is fitted to what the network is given, and this one gets "
                "something computed; give it a border, or call its fit in the function that builds the network"
            )
        layer.fit(each(batch)[places[name]] for batch in batches())


def _places(network: nn.Module, layers: dict[str, IntegerInput], batch: Inputs, where: str) -> dict[str, int]:
    """Which input of the network each layer is called with; layers called with others are missing."""
    found: dict[str, int] = {}
    given = each(batch)

    def note(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        def hook(layer: IntegerInput, inputs: tuple[Any, ...]) -> None:
            for place, tensor in enumerate(given):
                if inputs[0] is tensor:
                    found[name] = place
            layer.fit([inputs[0]])  # so that the network goes on; the whole range follows

        return hook

    handles = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    try:
        trial(network, batch, where)
    finally:
        for handle in handles:
            handle.remove()
    return found


def require_lowerable(network: nn.Module, example: tuple[Tensor, ...], where: str) -> None:
    """Checks a network before its training; a network in float has nothing to check.

    Layers without an input grid get theirs (`maqd.check`).

    Args:
        network: Its float inputs must have a border.
        example: A batch for each input.
        where: What the network is called, for messages.

    Raises:
        ConfigError: It has quantized layers and cannot be lowered; the message names every call that stands in the way.
    """
    if not any(getattr(module, "quantizer", None) is not None for module in network.modules()):
        return
    refusals = check(network, example, affine=AffineForm.THRESHOLDS)
    if refusals:
        remedy = "change it, or train it all the same with --lowerable false"
        lines = [f"{where} cannot be lowered to integers; {remedy}", *map(str, refusals)]
        raise ConfigError(f"{lines[0]}: {lines[1]}" if len(refusals) == 1 else "\n  ".join(lines))


@torch.no_grad()
def trial(network: nn.Module, inputs: Inputs, where: str) -> Any:
    """What a network returns for a batch in evaluation, before its training; its modes are left as they are.

    Args:
        network: The network.
        inputs: The batch.
        where: What the network is called, for messages.

    Raises:
        ConfigError: It fails on the batch.
    """
    training = network.training
    try:
        return call(network.eval(), inputs)
    except ConfigError:
        raise
    except Exception as error:  # whatever the network's code raises
        raise ConfigError(
            f"{where} fails on a batch of {batch_type(inputs)}: {type(error).__name__}: {error}; "
            "make the network and its data fit"
        ) from error
    finally:
        network.train(training)


def batch_type(inputs: Inputs) -> str:
    """Types and shapes of a batch, for messages."""
    return ", ".join(f"{str(one.dtype).removeprefix('torch.')}{list(one.shape)}" for one in each(inputs))
