"""Float networks of one's own in runs: converted when training starts, and again, alike, when a run is opened."""

import json
from collections.abc import Iterable
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from maqd.convert import ConversionConfig, Kept, Rounding, convert
from maqd.convert.pixels import FromPixels
from maqd.data import DataInfo
from maqd.errors import CheckpointError, ConfigError
from maqd.nn import IntegerInput, NormActivation
from maqd.nn.calling import Inputs, each
from maqd.nn.layers import QuantLayer
from maqd.settings.model import ModelConfig
from maqd.settings.quantization import Norm, QuantConfig


class ConvertedNetwork(nn.Module):
    """A float network as one of few states (`maqd.convert`), which its state alone builds again.

    The steps of a converted network are powers of two in its layers, and no tensor says them. So the state holds what
    they were fitted to, `origin`: the bytes of a safetensors file with the float network's state and calibration data.
    Before `fit` the network has the right layers, with numbers that mean nothing.

    Args:
        network: The float network, of one input.
        config: States.
        example: A batch of one sample.

    Raises:
        ConversionError: Calls cannot be converted.
    """

    origin: Tensor

    def __init__(self, network: nn.Module, config: ConversionConfig, example: Tensor) -> None:
        super().__init__()
        self._float = [network]  # in a list, so that it is no submodule with parameters to train
        self.config = config
        self.register_buffer("origin", torch.empty(0, dtype=torch.uint8))
        generator = torch.Generator().manual_seed(0)
        self.network = self._converted((torch.rand(8, *example.shape[1:], generator=generator) * 255).to(example.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """What the converted network returns."""
        return self.network(x)

    @property
    def original(self) -> nn.Module:
        """The float network."""
        return self._float[0]

    def fit(self, batches: Iterable[Inputs]) -> None:
        """Converts the float network as it is now.

        Args:
            batches: To calibrate on.
        """
        x = torch.cat([each(batch)[0] for batch in batches]).contiguous()
        self.network = self._converted(x)
        tensors = {f"state.{name}": value.contiguous() for name, value in self.original.state_dict().items()}
        blob = save({**tensors, "input": x}, {"steps": steps(self.network)})
        self.origin = torch.frombuffer(bytearray(blob), dtype=torch.uint8)

    def _converted(self, x: Tensor) -> nn.Module:
        model = convert(self.original.train(), x[:1], self.config, calibrate=[x]).model
        return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def _restore(self, origin: Tensor) -> None:
        blob = origin.cpu().numpy().tobytes()
        tensors = load(blob)
        x = tensors.pop("input")
        self.original.load_state_dict({name.removeprefix("state."): value for name, value in tensors.items()})
        self.network = self._converted(x)
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        if steps(self.network) != header["__metadata__"]["steps"]:
            raise CheckpointError(
                "the float network, converted again, has other steps than when it was trained; open the run with the "
                "versions of maqd and PyTorch that trained it"
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **options: Any) -> None:
        origin = state_dict.get(f"{prefix}origin")
        if isinstance(origin, Tensor) and origin.numel():
            if not torch.equal(origin.cpu(), self.origin.cpu()):
                training = self.training
                self._restore(origin)
                self.train(training)
            self.origin = torch.empty_like(origin)
        super()._load_from_state_dict(state_dict, prefix, *args, **options)


def steps(network: nn.Module) -> str:
    """All numbers of a converted network that are in no tensor, as JSON."""
    found: list[list[object]] = []
    for name, module in network.named_modules():
        if isinstance(module, QuantLayer):
            found.append([name, module.exponent])
        elif isinstance(module, NormActivation) and module.quantizer is not None:
            found.append([name, module.quantizer.step, module.quantizer.states.count])
        elif isinstance(module, IntegerInput):
            found.append([name, module.grid.low, module.grid.high, module.grid.exponent, module.zero])
    return json.dumps(found)


def converted_network(config: ModelConfig, info: DataInfo, network: nn.Module) -> nn.Module:
    """The network of a run with `model.convert`.

    Args:
        config: With `convert.enabled`. Without `quant.rounding` the float network itself is trained.
        info: Its data.
        network: What its function returned.

    Raises:
        ConfigError: It has several inputs, or options that have no meaning here.
        ConversionError: Calls cannot be converted.
    """
    if len(info.inputs) != 1:
        raise ConfigError(
            f"model.convert takes networks of one input, and the data has {info.takes}; convert in the function that "
            "returns the network, with fixed data"
        )
    known = info.inputs[0]
    if known.dtype == "uint8":
        network = FromPixels(network, tuple(config.convert.mean) or (0.0,), tuple(config.convert.std) or (1.0,))
    elif config.convert.mean or config.convert.std:
        raise ConfigError(f"model.convert.mean and std are those of uint8 images, and the data has {info.takes}")
    if not config.quant.rounding:
        return network
    example = torch.zeros(1, *known.shape, dtype=getattr(torch, known.dtype))
    return ConvertedNetwork(network, conversion_of(config.quant), example)


def float_of(network: nn.Module) -> nn.Module:
    """The float network inside of what `converted_network` returned, as its function returned it."""
    inner = network.original if isinstance(network, ConvertedNetwork) else network
    return inner.network if isinstance(inner, FromPixels) else inner


def conversion_of(quant: QuantConfig) -> ConversionConfig:
    """The states of a run's options.

    Raises:
        ConfigError: They have no meaning for a converted network.
    """
    standard = QuantConfig()
    if quant.weight_states is None or quant.act_states is None:
        raise ConfigError("a converted network has states; train the float one with --model.quant.rounding false")
    for name in ("weight_step", "act_step", "affine", "weight_method", "act_method"):
        if getattr(quant, name) != getattr(standard, name):
            raise ConfigError(f"model.quant.{name} is fitted where a network is converted; leave it out")
    if quant.norm not in KEPT:
        raise ConfigError(
            f"model.quant.norm is one of {', '.join(norm.value for norm in KEPT)} where a network is converted, got "
            f"{quant.norm.value}; bn keeps its batch normalizations"
        )
    return ConversionConfig(
        weights=quant.weight_states,
        activations=quant.act_states,
        norm=KEPT[quant.norm],
        rounding=Rounding.FOLLOWING,
        overrides=quant.overrides,
        surrogate=quant.surrogate,
    )


KEPT = {Norm.BN: Kept.KEEP, Norm.LBN: Kept.LBN, Norm.LEVELLED_LBN: Kept.LEVELLED}
"""What normalizations become."""
