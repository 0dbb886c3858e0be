"""Small language models with random weights."""

import torch

from maqd.models import Architecture, LanguageNetwork, ModelConfig, build_language
from maqd.settings.language import FeedForward, TransformerConfig
from maqd.settings.quantization import QuantConfig

PLAIN = TransformerConfig(layers=2, width=24, heads=4, kv_heads=2, hidden=40)
OTHER = TransformerConfig(
    layers=1, width=16, heads=2, kv_heads=1, hidden=21, feed_forward=FeedForward.SQUARED_RELU, tied=True, sub_norm=True
)
"""Every option that `PLAIN` has not."""


def language_network(
    config: TransformerConfig = PLAIN, *, context: int = 12, seed: int = 0, quant: QuantConfig | None = None
) -> LanguageNetwork:
    """In evaluation mode, on bytes, with norms that are not 1."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # such small layers are slower on more
    quant = quant or QuantConfig(weight_states=3, act_states=255)
    model = ModelConfig(architecture=Architecture.LLAMA, transformer=config, quant=quant)
    network = build_language(model, vocabulary=256, context=context)
    assert isinstance(network, LanguageNetwork)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return network.eval()


def some_tokens(shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    """Random bytes."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
