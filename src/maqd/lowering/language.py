"""A trained decoder as a language model of integers and norms."""

from typing import Any

import numpy as np
from torch import nn

from maqd.errors import LoweringError
from maqd.language.model import BlockWeights, LanguageModel, Norm, WeightMap
from maqd.models.language import LanguageNetwork
from maqd.nn.transformer import RMSNorm, TokenLinear
from maqd.numerics.packing import PackedCodes


def lower_language(network: nn.Module, *, provenance: str = "") -> LanguageModel:
    """The weights of a decoder as codes; evaluation computes with the same ones.

    Args:
        network: A `LanguageNetwork`.
        provenance: What the file says about where it is from.

    Raises:
        LoweringError: It is another network, or a part of it is in float.
    """
    if not isinstance(network, LanguageNetwork):
        raise LoweringError(f"a language model is lowered from a LanguageNetwork, got {type(network).__name__}")
    act_states = network.output.states
    if act_states is None:
        raise LoweringError(
            "the activations of the language model are in float; train it with --model.quant.act_states 255"
        )
    if not network.output.rounding:
        raise LoweringError("the language model does not round; train it with --model.quant.rounding true")
    modules = dict(network.named_modules())

    def weight_map(name: str) -> WeightMap:
        layer = modules[name]
        if not isinstance(layer, TokenLinear) or layer.states is None or layer.exponent is None:
            raise LoweringError(
                f"{name} has float weights, and a file holds weights of few states; set model.quant.weight_states and "
                "model.transformer.embedding_states"
            )
        codes = layer.weight_codes().numpy()
        return WeightMap(weight=PackedCodes.pack(codes, layer.states), exponent=layer.exponent)

    def norm(name: str) -> Norm:
        layer: Any = modules[name]
        if not isinstance(layer, RMSNorm):
            raise LoweringError(f"{name} is a {type(layer).__name__}, and a file holds RMS norms; use those")
        return np.ascontiguousarray(layer.weight.detach().cpu().float().numpy())

    config = network.config
    blocks = tuple(
        BlockWeights(
            attention_norm=norm(f"blocks.{place}.attention_norm"),
            query=weight_map(f"blocks.{place}.attention.query"),
            key=weight_map(f"blocks.{place}.attention.key"),
            value=weight_map(f"blocks.{place}.attention.value"),
            mixed_norm=norm(f"blocks.{place}.attention.sub_norm") if config.sub_norm else None,
            output=weight_map(f"blocks.{place}.attention.output"),
            feed_norm=norm(f"blocks.{place}.feed_norm"),
            gate=weight_map(f"blocks.{place}.feed.gate") if f"blocks.{place}.feed.gate" in modules else None,
            up=weight_map(f"blocks.{place}.feed.up"),
            hidden_norm=norm(f"blocks.{place}.feed.sub_norm") if config.sub_norm else None,
            down=weight_map(f"blocks.{place}.feed.down"),
        )
        for place in range(config.layers)
    )
    model = LanguageModel(
        config=config,
        vocabulary=network.vocabulary,
        context=network.context,
        act_states=act_states.count,
        embedding=weight_map("embedding"),
        blocks=blocks,
        norm=norm("norm"),
        head=None if config.tied else weight_map("head"),
        provenance=provenance,
    )
    model.validate()
    return model
