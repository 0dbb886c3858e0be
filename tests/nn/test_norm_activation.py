"""Normalization and activation as one: training against the two apart, evaluation against exact fractions."""

import copy
import math
import pickle
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import exact_code
from torch import Tensor, nn

from maqd import States
from maqd.errors import NonFiniteError
from maqd.nn import (
    BatchNorm,
    ExtendedBatchNorm,
    LayerBatchNorm,
    LayerNorm,
    LevelledLayerBatchNorm,
    NormActivation,
    Profile,
    QuantActivation,
    Quantizer,
    Surrogate,
)
from maqd.nn.functional import quantize_activation
from maqd.nn.norm import FoldableNorm

FOLDABLE = [LayerBatchNorm, LevelledLayerBatchNorm, BatchNorm, ExtendedBatchNorm]
C = 4
STATES = [States(count=m, signed=s) for m in (2, 3, 4, 17, 18, 256) for s in (False, True)]
FOUR = Quantizer(states=States(count=4, signed=False), step=0.5)


def randomize(norm: FoldableNorm) -> FoldableNorm:
    """Parameters and statistics in general position, with a negative and a dead channel."""
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    for name, buffer in norm.named_buffers():
        (nn.init.uniform_(buffer, 0.5, 4.0) if name.endswith("var") else nn.init.normal_(buffer))
    if norm.weight is not None and norm.weight.numel() > 2:
        with torch.no_grad():
            norm.weight[1] = -norm.weight[1].abs()
            norm.weight[2] = 0
    return norm


# ---- training: fused == apart ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("states", STATES, ids=str)
@pytest.mark.parametrize("kind", [LayerBatchNorm, BatchNorm])
def test_fused_training_equals_the_two_apart_where_floats_are_exact(
    kind: type[FoldableNorm], states: States, dtype: torch.dtype
):
    """Inputs of mean 0 and variance 1, eps 3: the reciprocal deviation is 1/2, and many positions are ties."""
    norm = kind(C, eps=3.0).to(torch.float64 if dtype == torch.float64 else torch.float32)
    x = torch.stack([torch.tensor([-1.0, 1.0] * 8)[torch.randperm(16)] for _ in range(C)], 1).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 8.0, 0.0]))
        norm.bias.copy_(torch.tensor([0.25, 0.5, 1.5, 0.75]))
    quantizer = Quantizer(states=states, step=0.5)
    fused = NormActivation(norm, quantizer)(x)
    expected = x.double() * 0.5 * norm.weight.double() + norm.bias.double()
    codes = [[exact_code(Fraction(v), states, 0.5) for v in row] for row in expected.tolist()]
    assert fused.dtype == dtype
    assert (fused.double() / quantizer.grid.unit).tolist() == codes
    assert torch.equal(fused, quantize_activation(norm(x), quantizer))


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("states", [s for s in STATES if s.count in (2, 3, 4, 18)], ids=str)
@pytest.mark.parametrize("kind", FOLDABLE)
def test_fused_gradients_equal_those_of_the_two_apart(kind: type[FoldableNorm], states: States, profile: Profile):
    surrogate = Surrogate(profile=profile, width=0.8, scale=1.5)
    quantizer = Quantizer(states=states, step=0.5, surrogate=surrogate)
    fused = NormActivation(randomize(kind(C)).double(), quantizer)
    apart = nn.Sequential(copy.deepcopy(fused.norm), QuantActivation(quantizer))
    x = torch.randn(5, C, 3, 4, dtype=torch.float64)
    grad = torch.randn_like(x)
    results = []
    for act, norm in ((fused, fused.norm), (apart, apart[0])):
        leaf = x.clone().requires_grad_()
        out = act(leaf)
        out.backward(grad)
        results.append([out.detach(), leaf.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values()])
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1].any()
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [*FOLDABLE, LayerNorm])
def test_without_a_quantizer_the_activation_is_relu(kind: type):
    act = NormActivation(kind(C), None)
    x = torch.randn(6, C, 2)
    for training in (True, False):
        act.train(training)
        other = copy.deepcopy(act.norm)
        assert torch.equal(act(x), torch.relu(other(x)))
    assert act.states is None


def test_layer_norm_is_evaluated_as_it_is_trained():
    act = NormActivation(LayerNorm(C), FOUR)
    x = torch.randn(6, C, 5)
    trained = act(x)
    assert torch.equal(act.eval()(x), trained)
    assert act.thresholds.numel() == 0


# ---- evaluation: brute force over accumulators -----------------------------------------------------------------------


def expected_codes(norm: FoldableNorm, quantizer: Quantizer, x: Tensor) -> list[list[int]]:
    """Codes of rows x C, from the folded map in rational arithmetic."""
    gain, mean, bias = ([Fraction(v) for v in values.tolist()] for values in norm.affine_map())
    return [
        [
            exact_code(gain[c] * (Fraction(v) - mean[c]) + bias[c], quantizer.states, quantizer.step)
            for c, v in enumerate(row)
        ]
        for row in x.tolist()
    ]


def codes_of(out: Tensor, quantizer: Quantizer) -> list[list[int]]:
    codes = out.double() / quantizer.grid.unit
    assert torch.equal(codes, codes.round())
    return codes.int().tolist()


@pytest.mark.parametrize("exponent", [-9, -3, 0])
@pytest.mark.parametrize("states", STATES, ids=str)
@pytest.mark.parametrize("kind", FOLDABLE)
def test_evaluation_is_exact_for_every_accumulator(kind: type[FoldableNorm], states: States, exponent: int):
    quantizer = Quantizer(states=states, step=0.5 if states.count < 256 else 2.0**-5)
    act = NormActivation(randomize(kind(C)), quantizer).eval()
    accumulators = torch.arange(-200, 201).float() * 2.0**exponent
    x = accumulators[:, None].expand(-1, C)
    assert codes_of(act(x), quantizer) == expected_codes(act.norm, quantizer, x)


@settings(max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 20),
    st.booleans(),
    st.sampled_from([2.0**-4, 0.5, 1.0, 4.0]),
    st.integers(-12, 2),
)
def test_evaluation_is_exact_on_dyadic_parameters_with_ties(
    seed: int, count: int, signed: bool, step: float, exponent: int
):
    """A variance of 1 - eps and short dyadic parameters: accumulators fall exactly on thresholds."""
    generator = torch.Generator().manual_seed(seed)
    norm = BatchNorm(C, eps=0.75)
    with torch.no_grad():
        norm.running_var.fill_(0.25)
        norm.weight.copy_(torch.randint(-8, 9, (C,), generator=generator) / 4)
        norm.bias.copy_(torch.randint(-8, 9, (C,), generator=generator) * step / 4)
        norm.running_mean.copy_(torch.randint(-8, 9, (C,), generator=generator) * 2.0**exponent / 2)
    quantizer = Quantizer(states=States(count=count, signed=signed), step=step)
    act = NormActivation(norm, quantizer).eval()
    x = torch.arange(-40, 41).float()[:, None].expand(-1, C) * 2.0**exponent
    assert codes_of(act(x), quantizer) == expected_codes(norm, quantizer, x)


def test_largest_accumulators_are_compared_exactly():
    """Around thresholds near 2^24, where float32 has no fractions left."""
    norm = BatchNorm(1)
    quantizer = Quantizer(states=States(count=2, signed=False))
    for mean in (2.0**24 - 2, 2.0**24 - 1, -(2.0**24) + 1, 2.0**23 + 0.5):
        norm.running_mean.fill_(mean)
        act = NormActivation(norm, quantizer).eval()
        x = torch.arange(mean - 3, min(mean + 3, 2**24) + 1, dtype=torch.float64).round().float()[:, None]
        assert codes_of(act(x), quantizer) == expected_codes(norm, quantizer, x)


LAYOUTS = {"NC": ((9, C), 1), "NTC": ((3, 5, C), -1), "NCL": ((3, C, 5), 1), "NCHW": ((2, C, 3, 4), 1)}


@pytest.mark.parametrize("count", [4, 32])
@pytest.mark.parametrize(("shape", "dim"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_evaluation_is_the_same_for_every_shape_and_layout(shape: tuple[int, ...], dim: int, count: int):
    quantizer = Quantizer(states=States(count=count, signed=False), step=2.0 / count)
    act = NormActivation(randomize(LayerBatchNorm(C, channel_dim=dim)), quantizer).eval()
    x = torch.randint(-20, 20, shape).float() / 8
    out = act(x)
    assert out.shape == x.shape
    flat = x.movedim(dim, -1).reshape(-1, C)
    assert codes_of(out.movedim(dim, -1).reshape(-1, C), quantizer) == expected_codes(act.norm, quantizer, flat)
    strided = torch.stack([x, x], -1)[..., 0]
    assert torch.equal(act(strided), out)
    if x.ndim == 4:
        assert torch.equal(act(x.to(memory_format=torch.channels_last)), out)


def test_evaluation_under_autocast_and_of_bfloat16_gives_the_same_integers():
    act = NormActivation(randomize(LayerBatchNorm(C)), FOUR).eval()
    x = torch.randint(-100, 100, (64, C)).float() / 32  # exact in bfloat16
    expected = act(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(act(x), expected)
        assert torch.equal(act(x.bfloat16()).float(), expected)
    assert expected.unique().numel() == 4


# ---- when thresholds are computed again ------------------------------------------------------------------------------


def change_by_optimizer(act: NormActivation, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    act.train()
    steps = optimizer(act.parameters(), lr=1.0)
    act(torch.randn(16, C)).square().sum().backward()
    with torch.no_grad():
        for parameter in act.parameters():
            parameter.grad = torch.ones_like(parameter)
    steps.step()


def change_by_loading(act: NormActivation) -> None:
    act.load_state_dict({name: value * 2 + 0.5 for name, value in act.state_dict().items()})


def change_by_replacement(act: NormActivation) -> None:
    act.norm.weight = nn.Parameter(torch.tensor([3.0, -1.0, 0.5, 2.0]))


def change_in_place(act: NormActivation) -> None:
    with torch.no_grad():
        act.norm.bias.add_(1)


def change_by_training_on_a_batch(act: NormActivation) -> None:
    act.train()(torch.randn(16, C) * 5 + 3)


def change_through_data(act: NormActivation) -> None:
    act.train()
    act.norm.weight.data.mul_(-3)


CHANGES = {
    "SGD": lambda act: change_by_optimizer(act, torch.optim.SGD),
    "AdamW": lambda act: change_by_optimizer(act, torch.optim.AdamW),
    "SGD foreach": lambda act: change_by_optimizer(act, lambda p, lr: torch.optim.SGD(p, lr=lr, foreach=True)),
    "SGD fused": lambda act: change_by_optimizer(act, lambda p, lr: torch.optim.SGD(p, lr=lr, fused=True)),
    "AdamW fused": lambda act: change_by_optimizer(act, lambda p, lr: torch.optim.AdamW(p, lr=lr, fused=True)),
    "load_state_dict": change_by_loading,
    "replaced parameter": change_by_replacement,
    "in-place": change_in_place,
    "running statistics": change_by_training_on_a_batch,
    "data": change_through_data,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("kind", FOLDABLE)
def test_evaluation_follows_every_change_of_the_parameters(kind: type[FoldableNorm], change: Callable):
    act = NormActivation(randomize(kind(C)), FOUR).eval()
    x = torch.arange(-40, 41).float()[:, None].expand(-1, C) / 8
    before = act(x)
    change(act)
    act.eval()
    after = act(x)
    assert not torch.equal(after, before)
    assert codes_of(after, FOUR) == expected_codes(act.norm, FOUR, x)


@pytest.mark.parametrize("name", ["load_state_dict", "replaced parameter", "in-place"])
def test_evaluation_follows_changes_without_leaving_evaluation(name: str):
    act = NormActivation(randomize(LayerBatchNorm(C)), FOUR).eval()
    x = torch.arange(-40, 41).float()[:, None].expand(-1, C) / 8
    act(x)
    CHANGES[name](act)
    assert not act.training
    assert codes_of(act(x), FOUR) == expected_codes(act.norm, FOUR, x)


# Dynamo instantiates autograd.Function itself while it traces one.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_evaluation_follows_load_state_dict():
    act = NormActivation(randomize(LayerBatchNorm(C)), FOUR).eval()
    x = torch.arange(-40, 41).float()[:, None].expand(-1, C) / 8
    compiled = torch.compile(act, backend="eager", fullgraph=True)
    compiled(x)
    change_by_loading(act)
    result = compiled(x)
    assert codes_of(result, FOUR) == expected_codes(act.norm, FOUR, x)


@pytest.mark.parametrize("trained", [False, True])
def test_copies_and_pickles_evaluate_the_same_and_on_their_own(trained: bool):
    act = NormActivation(randomize(LayerBatchNorm(C)), FOUR)
    x = torch.arange(-40, 41).float()[:, None].expand(-1, C) / 8
    if trained:
        act.train()(torch.randn(8, C))
    expected = act.eval()(x)
    for other in (copy.deepcopy(act), pickle.loads(pickle.dumps(act))):
        assert torch.equal(other(x), expected)
        change_in_place(other)
        assert codes_of(other(x), FOUR) == expected_codes(other.norm, FOUR, x)
        assert torch.equal(act(x), expected)


def test_thresholds_are_no_part_of_the_state_dict():
    act = NormActivation(LayerBatchNorm(C), FOUR)
    names = set(act.state_dict())
    act.eval()
    assert set(act.state_dict()) == names == {f"norm.{n}" for n in ("weight", "bias", "running_mean", "running_var")}


def test_a_network_can_be_made_in_inference_mode():
    with torch.inference_mode():
        act = NormActivation(LayerBatchNorm(C), FOUR).eval()
        assert act(torch.zeros(2, C)).shape == (2, C)


def test_folding_in_inference_mode_leaves_evaluation_usable_outside_of_it():
    act = NormActivation(LayerBatchNorm(C), FOUR)
    with torch.inference_mode():
        expected = act.eval()(torch.zeros(2, C))
    assert torch.equal(act(torch.zeros(2, C, requires_grad=True)), expected)


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_parameters_that_are_not_finite_are_refused(name: str):
    act = NormActivation(LayerBatchNorm(C), FOUR)
    with torch.no_grad():
        getattr(act.norm, name).fill_(math.nan)
    with pytest.raises(NonFiniteError, match="must be finite"):
        act.eval()


def test_representations_name_states_and_surrogate():
    assert "states=4, unsigned, step=0.5, window" in repr(NormActivation(LayerBatchNorm(C), FOUR))
    assert "relu" in repr(QuantActivation(None))


def test_activation_alone_is_relu_without_a_quantizer():
    x = torch.randn(50)
    assert torch.equal(QuantActivation(None)(x), torch.relu(x))
    assert torch.equal(QuantActivation(FOUR)(x), quantize_activation(x, FOUR))
    assert QuantActivation(FOUR).states == FOUR.states


def test_thresholds_are_ascending_float32():
    act = NormActivation(randomize(BatchNorm(C)), FOUR).eval()
    assert (act.thresholds.dtype, act.thresholds.shape, act.signs.tolist()) == (torch.float32, (3, C), [1, -1, 1, 1])
    live = act.thresholds[:, [0, 1, 3]].numpy()
    assert (np.diff(live, axis=0) > 0).all()
