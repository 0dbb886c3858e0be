"""Layers of language models: exact codes, integer sums, gradients that pass straight, a float twin."""

import math
from fractions import Fraction

import pytest
import torch
from language_models import OTHER, PLAIN, language_network, some_tokens

from maqd.errors import ConfigError
from maqd.nn import QuantConfig, set_rounding
from maqd.nn.transformer import (
    Attention,
    TokenActivation,
    TokenLinear,
    exact_attention,
    exp2_fixed,
    power_of_two,
    silu_fixed,
    token_codes,
)
from maqd.numerics.states import States
from maqd.settings.language import TransformerConfig
from maqd.settings.quantization import WeightMethod


def test_powers_of_two_are_exact():
    exponents = torch.arange(-126, 128)
    assert [math.ldexp(1.0, e) for e in exponents.tolist()] == power_of_two(exponents).tolist()


@pytest.mark.parametrize("count", [3, 15, 255])
def test_codes_of_a_token_are_those_of_exact_arithmetic(count: int):
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(40, 9, generator=generator) * 10.0 ** torch.randint(-6, 6, (40, 1), generator=generator)
    x[0], x[1, :3] = 0.0, torch.tensor([1.0, 0.5, -0.25])
    x[2] = torch.arange(9) / 16  # ties
    codes, exponents = token_codes(x, States(count=count, signed=True))
    limit = (count - 1) // 2
    for row, found, exponent in zip(x, codes, exponents, strict=True):
        largest = max(abs(Fraction(value)) for value in row.tolist())
        bits = 0
        while largest and Fraction(2) ** bits <= largest:
            bits += 1
        while largest and Fraction(2) ** (bits - 1) > largest:
            bits -= 1
        unit = Fraction(2) ** (bits - limit.bit_length())
        assert Fraction(2) ** int(exponent) == unit
        wanted = [
            max(-limit, min(limit, math.floor(Fraction(value) / unit + Fraction(1, 2)))) for value in row.tolist()
        ]
        assert found.tolist() == wanted


def test_an_even_number_of_activation_states_is_refused():
    with pytest.raises(ConfigError, match="odd number of states, got 16; use 15"):
        TokenActivation(16)


def test_fixed_functions_are_close_to_the_real_ones():
    t = torch.linspace(-126, 126, 5001)
    assert ((exp2_fixed(t).double() / torch.exp2(t.double()) - 1).abs() < 2e-7).all()
    x = torch.linspace(-30, 30, 4001)
    assert torch.allclose(silu_fixed(x), torch.nn.functional.silu(x), rtol=1e-5, atol=1e-7)
    assert exp2_fixed(torch.zeros(1)).item() == 1.0


def test_gradients_pass_straight_through_codes():
    activation = TokenActivation(15)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    factor = torch.arange(8.0)
    (activation(x) * factor).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, factor.expand(3, 8))


@pytest.mark.parametrize("method", [WeightMethod.MAQD, WeightMethod.ABSMEAN])
def test_outputs_are_integer_sums_times_a_power_of_two(method: WeightMethod):
    network = language_network(quant=QuantConfig(weight_states=3, act_states=255, weight_method=method))
    layer = network.blocks[0].attention.query
    assert isinstance(layer, TokenLinear)
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [[1e-3], [1.0], [7.0], [90.0], [0]]
    )
    codes, exponent = token_codes(x, States(count=255, signed=True))
    sums = codes.long() @ layer.weight_codes().long().T
    with torch.no_grad():
        found = layer(TokenActivation(255)(x))
    assert layer.exponent is not None
    assert torch.equal(found, sums.float() * power_of_two(exponent + layer.exponent))
    assert set(layer.weight_codes().unique().tolist()) == {-1, 0, 1}


def test_exact_attention_is_attention():
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, heads, 10, 8, generator=generator) for heads in (4, 2, 2))
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    assert (exact_attention(query, key, value) - wanted).abs().max() < 0.03  # of 8-bit codes


@pytest.mark.parametrize("config", [PLAIN, OTHER])
def test_evaluation_is_close_to_what_training_computes_and_trains(config: TransformerConfig):
    network = language_network(config)
    tokens = some_tokens((2, 12))
    with torch.no_grad():
        exact = network(tokens)
    smooth = network(tokens)  # gradients are recorded
    assert exact.shape == (2, 256, 12)
    assert (exact - smooth).abs().max() < 0.2 * exact.std()
    network.train()
    torch.nn.functional.cross_entropy(network(tokens), tokens.long()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_later_tokens_change_nothing_before_them():
    network, tokens = language_network(), some_tokens((1, 12))
    with torch.no_grad():
        whole, start = network(tokens), network(tokens[:, :5])
    assert torch.equal(whole[..., :5], start)


def test_float_twin_has_no_codes_and_rounding_can_be_switched_off():
    twin = language_network(quant=QuantConfig(weight_states=None, act_states=None))
    assert all(layer.states is None for layer in twin.modules() if isinstance(layer, TokenLinear))
    tokens = some_tokens((1, 8))
    with torch.no_grad():
        assert torch.isfinite(twin(tokens)).all()
        network = language_network()
        few = network(tokens)
        set_rounding(network, False)
        assert not torch.equal(network(tokens), few)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="even number of channels up to 1024, got 24 channels and 8 heads"):
        TransformerConfig(width=24, heads=8, kv_heads=2)
    with pytest.raises(ConfigError, match="kv_heads must divide the heads, got 3 and 4"):
        TransformerConfig(kv_heads=3)
    with pytest.raises(ConfigError, match="context of 12 tokens, got 13"):
        language_network()(some_tokens((1, 13)))
    assert isinstance(language_network().blocks[0].attention, Attention)
