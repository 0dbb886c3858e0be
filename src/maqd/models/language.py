"""Decoders of text: Llama-like networks of few states of any size, from a configuration."""

import numpy as np
import torch
from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.nn.factory import LayerFactory
from maqd.nn.transformer import Block, RMSNorm, TokenActivation, Vocabulary, vocabulary_gain
from maqd.numerics.tokens import embedding_shift, rotations
from maqd.settings.language import TransformerConfig


class LanguageNetwork(nn.Module):
    """Scores of the next token at every position: tokens N x T -> float32 N x V x T.

    Args:
        config: Its sizes.
        layers: Quantization; `weight_states: None` and `act_states: None` give the float twin.
        vocabulary: V; 256 for bytes.
        context: T, the most tokens that it sees.

    Layers are "embedding", "blocks.I.attention.{query,key,value,output}", "blocks.I.feed.{gate,up,down}" and "head".
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: TransformerConfig, layers: LayerFactory, *, vocabulary: int, context: int) -> None:
        super().__init__()
        if vocabulary < 2 or context < 1:
            raise ConfigError(
                f"a language model needs two tokens and a context of 1 or more, got {vocabulary} and {context}"
            )
        self.config, self.vocabulary, self.context = config, vocabulary, context
        act_states = layers.quant.act_states
        states = None if layers.quant.weight_states is None else config.embedding_states
        width = config.width
        self.output = TokenActivation(act_states)
        tables = {"states": states, "activation": self.output}
        gain = vocabulary_gain(width, embedding=not config.tied)
        self.embedding = Vocabulary(vocabulary, width, gain=gain, **tables)
        self.embedding_factor = 2.0 ** embedding_shift(width) if config.tied else 1.0
        self.blocks = nn.ModuleList(
            Block(config, layers, f"blocks.{place}", act_states) for place in range(config.layers)
        )
        self.norm = RMSNorm(width, config.norm_eps)
        gain = vocabulary_gain(width, embedding=False)
        self.head = None if config.tied else Vocabulary(vocabulary, width, gain=gain, **tables)
        cosine, sine = rotations(np.arange(context), config.head_size, config.rope_base)
        self.register_buffer("cosine", torch.from_numpy(cosine), persistent=False)
        self.register_buffer("sine", torch.from_numpy(sine), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores.

        Raises:
            ConfigError: There are more tokens than the context.
        """
        length = tokens.shape[-1]
        if length > self.context:
            raise ConfigError(
                f"the language model has a context of {self.context} tokens, got {length}; pass fewer, or train it "
                "with a larger --data.context"
            )
        x = self.embedding.embed(tokens) * self.embedding_factor
        for block in self.blocks:
            x = block(x, self.cosine[:length], self.sine[:length])
        head = self.embedding if self.head is None else self.head
        return head(self.output(self.norm(x))).transpose(1, 2)
