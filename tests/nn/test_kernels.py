"""The compiled kernels against the PyTorch expressions and float64: codes bit for bit, sums within rounding."""

import math

import numpy as np
import pytest
import torch
from reference import phi
from torch import Tensor

from maqd import States
from maqd.nn import NormActivation, Profile, Quantizer, Surrogate, kernels, make_norm
from maqd.settings.quantization import Norm

needs_library = pytest.mark.skipif(not kernels.has_compiled_kernels(), reason="built without a C compiler")

CHANNELS = [1, 3, 31, 64, 513]
ROWS = [1, 2, 7, 300]
DTYPES = [torch.float32, torch.bfloat16]


def bits(x: Tensor) -> Tensor:
    """The representation, with all not-a-numbers alike."""
    x = torch.where(x.isnan(), torch.full_like(x, math.nan), x)
    return x.view(torch.int32 if x.dtype == torch.float32 else torch.int16)


def example(rows: int, channels: int, dtype: torch.dtype, planes: int = 2) -> tuple[Tensor, Tensor]:
    """Values many of which lie exactly on thresholds, and parameters with some channels turned round or dead."""
    x = torch.randn(rows, channels) * 3
    x = torch.where(torch.rand_like(x) < 0.4, torch.randint(-8, 9, x.shape) / 2, x)
    params = torch.randn(planes, channels)
    params[:2, ::3] = torch.randint(-4, 5, (2, len(range(0, channels, 3)))).float() / 2
    return x.to(dtype), params


@needs_library
@pytest.mark.parametrize("states", [1, 2, 3, 4, 16, 256])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_compiled_activation_equals_the_expression_bit_for_bit(channels: int, dtype: torch.dtype, states: int):
    for rows in ROWS:
        x, params = example(rows, channels, dtype)
        for step, offset in ((1.0, 0.0), (0.25, -0.25 * (states - 1) / 2)):
            compiled = kernels.affine_act(x, params, states, step, offset)
            expression = kernels.affine_act_expression(x, params, states, step, offset)
            assert (compiled.dtype, compiled.shape) == (dtype, x.shape)
            assert torch.equal(bits(compiled), bits(expression))


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_activation_takes_ties_up_and_clips(dtype: torch.dtype):
    x = torch.tensor([[-1e30, -1.0, -0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 1e30]]).T.contiguous().to(dtype)
    out = kernels.affine_act(x, torch.tensor([[1.0], [0.0]]), 4, 1.0, 0.0)
    assert out[:, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("states", [1, 2, 4, 256])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_not_a_number_stays_not_a_number(dtype: torch.dtype, states: int):
    x = torch.randn(9, 5).to(dtype)
    x[4, 2] = math.nan
    params = torch.tensor([[1.0], [0.5]]).expand(2, 5).contiguous().to(torch.promote_types(dtype, torch.float32))
    out = kernels.affine_act(x, params, states, 1.0, 0.0)
    assert out.isnan().nonzero().tolist() == [[4, 2]]


INFINITE = [math.inf, -math.inf, 3e38, -3e38, 1.8e38]


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
def test_without_a_quantizer_infinities_pass(dtype: torch.dtype):
    x = torch.tensor([INFINITE]).to(dtype)
    params = torch.stack([torch.ones(5), torch.zeros(5)])
    assert torch.equal(kernels.affine_act(x, params, 1, 1.0, 0.0), x)


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_and_huge_positions_are_clipped(dtype: torch.dtype):
    x = torch.tensor([INFINITE]).to(dtype)
    params = torch.stack([torch.ones(5), torch.zeros(5)])
    assert kernels.affine_act_expression(x, params, 4, 1.0, 0.0).tolist() == [[3, 0, 3, 0, 3]]
    assert kernels.affine_act(x, params, 4, 1.0, 0.0).tolist() == [[3, 0, 3, 0, 3]]


def position(x: Tensor, params: Tensor) -> np.ndarray:
    """Positions as both sides compute it: two roundings in float32."""
    return (params[0] * x.float() + params[1]).double().numpy()


def masked(x: Tensor, grad: Tensor, params: Tensor, states: int, surrogate: Surrogate) -> np.ndarray:
    """Products g phi(v) in float64."""
    if states == 1:
        return grad.double().numpy()
    v = position(x, params)
    unsigned = States(count=states, signed=False)
    return grad.double().numpy() * phi(v - states / 2, unsigned, surrogate.profile, surrogate.width)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("channels", CHANNELS)
def test_moments_are_float64_sums(channels: int, dtype: torch.dtype):
    for rows in ROWS:
        x = (torch.randn(rows, channels) * 3 + 1).to(dtype)
        wide = x.double().numpy()
        expected = np.stack([wide.sum(0), (wide**2).sum(0)])
        result = kernels.channel_moments(x)
        assert result.dtype == torch.float64
        # Sums of float64 terms: only their order may differ.
        scale = np.stack([np.abs(wide).sum(0), (wide**2).sum(0)])
        assert (np.abs(result.numpy() - expected) <= 1e-13 * scale).all()


def test_moments_of_integers_are_exact():
    x = torch.randint(-1000, 1000, (999, 7)).float()
    wide = x.double()
    assert torch.equal(kernels.channel_moments(x), torch.stack([wide.sum(0), wide.square().sum(0)]))


@needs_library
@pytest.mark.parametrize("states", [1, 2, 4])
@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_sums_are_float64_sums_of_masked_gradients(dtype: torch.dtype, profile: Profile, states: int):
    surrogate = Surrogate(profile=profile, width=0.75)
    for rows, channels in ((1, 1), (7, 31), (300, 3), (40, 513)):
        x, params = example(rows, channels, dtype)
        grad = torch.randn(rows, channels).to(dtype)
        g = masked(x, grad, params, states, surrogate)
        terms = np.stack([g, g * x.double().numpy()])
        result = kernels.backward_sums(x, grad, params, states, surrogate)
        assert (result.dtype, result.shape) == (torch.float64, (2, channels))
        # phi is float32, off by less than 2^-20 with the polynomial exponential; the sums themselves are float64.
        bound = 2.0**-19 * np.abs(np.stack([grad.double().numpy(), (grad * x).double().numpy()])).sum(1)
        assert (np.abs(result.numpy() - terms.sum(1)) <= bound).all()


@needs_library
@pytest.mark.parametrize("states", [1, 2, 4])
@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_input_is_the_float64_formula(dtype: torch.dtype, profile: Profile, states: int):
    surrogate = Surrogate(profile=profile, width=0.75)
    for rows, channels in ((1, 1), (7, 31), (300, 3), (40, 513)):
        x, params = example(rows, channels, dtype, planes=5)
        grad = torch.randn(rows, channels).to(dtype)
        A, B, C = params[2:].double().numpy()
        wide, g = x.double().numpy(), masked(x, grad, params, states, surrogate)
        expected = g * A + wide * B + C
        result = kernels.backward_input(x, grad, params, states, surrogate)
        assert result.dtype == dtype
        size = np.abs(grad.double().numpy() * A) + np.abs(wide * B) + np.abs(C)
        # phi to 2^-20, four roundings of float32, and one of bfloat16 (to nearest: 2^-9).
        bound = 2.0**-19 * size + (2.0**-8 * np.abs(expected) if dtype == torch.bfloat16 else 0)
        assert (np.abs(result.double().numpy() - expected) <= bound).all()


@needs_library
@pytest.mark.parametrize("profile", [Profile.WINDOW, Profile.TRIANGLE, Profile.LINEAR_TAILS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_piecewise_linear_gradients_equal_the_expression_bit_for_bit(dtype: torch.dtype, profile: Profile):
    """With a power-of-two width both divide exactly; the other profiles differ in their exponential."""
    surrogate = Surrogate(profile=profile, width=0.5)
    for channels in CHANNELS:
        x, params = example(50, channels, dtype, planes=5)
        grad = torch.randn(50, channels).to(dtype)
        arguments = (x, grad, params, 4, list(Profile).index(profile), 0.5)
        expression = kernels.backward_input_expression(*arguments)
        assert torch.equal(bits(kernels.backward_input(x, grad, params, 4, surrogate)), bits(expression))


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
def test_exponentials_are_accurate_over_their_whole_range(dtype: torch.dtype):
    """The polynomial of exp, from 1 to underflow, through the profile with exponential tails."""
    v = torch.linspace(-200, 3, 4001)[:, None].contiguous().to(dtype)
    params = torch.tensor([[1.0], [0.0], [1.0], [0.0], [0.0]])
    result = kernels.backward_input(v, torch.ones_like(v), params, 4, Surrogate(profile=Profile.EXPONENTIAL_TAILS))
    expected = np.exp(-np.maximum((1 - v.double().numpy()) / 0.5 - 1, 0))
    relative = 2.0**-8 if dtype == torch.bfloat16 else 2e-5  # the exponent, up to 87, is rounded before
    np.testing.assert_allclose(result.double().numpy(), expected, rtol=relative, atol=2.0**-125)


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_the_same_bits_for_any_number_of_threads(dtype: torch.dtype):
    surrogate = Surrogate(profile=Profile.SIGMOID)
    for rows, channels in ((150_000, 1), (60_001, 3), (400, 513), (5, 64)):  # several chunks but for the last
        x, params = example(rows, channels, dtype, planes=5)
        grad = torch.randn(rows, channels).to(dtype)
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(
                [
                    kernels.channel_moments(x),
                    kernels.affine_act(x, params, 4, 0.5, 0.0),
                    kernels.backward_sums(x, grad, params, 4, surrogate),
                    kernels.backward_input(x, grad, params, 4, surrogate),
                ]
            )
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
def test_chunks_cover_every_row_once(dtype: torch.dtype):
    """Sizes around a tile (512 values) and a chunk (65,536 values)."""
    for rows in (511, 512, 513, 65_535, 65_536, 65_537, 131_072, 131_073):
        x = torch.ones(rows, 1, dtype=dtype)
        assert kernels.channel_moments(x).flatten().tolist() == [rows, rows]
        out = kernels.affine_act(x, torch.tensor([[1.0], [1.0]]), 4, 1.0, 0.0)
        assert (out == 2).all()


def make(dtype: torch.dtype) -> list[tuple[str, tuple[object, ...]]]:
    x, params = example(6, 3, dtype, planes=5)
    params = params.to(torch.promote_types(dtype, torch.float32))
    return [
        ("channel_moments", (x,)),
        ("affine_act", (x, params[:2].contiguous(), 4, 1.0, 0.0)),
        ("backward_sums", (x, torch.randn_like(x), params, 4, 0, 0.5)),
        ("backward_input", (x, torch.randn_like(x), params, 4, 0, 0.5)),
    ]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("number", range(4))
def test_operators_are_registered_as_pytorch_wants_them(number: int, dtype: torch.dtype):
    name, arguments = make(dtype)[number]
    result = torch.library.opcheck(getattr(torch.ops.maqd, name).default, arguments)
    assert set(result.values()) == {"SUCCESS"}


@needs_library
@pytest.mark.parametrize("norm", [Norm.LBN, Norm.BN])
@pytest.mark.parametrize("states", [2, 3, 16])
def test_codes_do_not_depend_on_the_compiled_path(states: int, norm: Norm, monkeypatch: pytest.MonkeyPatch):
    """The statistics of the two differ by rounding, which moves no value of this sample over a threshold."""
    quantizer = Quantizer(states=States(count=states, signed=False), step=0.5)
    act = NormActivation(make_norm(norm, 4), quantizer)
    x = torch.randn(6, 4, 5, 5)
    outputs = []
    for library in (kernels._LIBRARY, None):
        monkeypatch.setattr(kernels, "_LIBRARY", library)
        assert kernels.has_compiled_kernels() == (library is not None)
        leaf = x.clone().requires_grad_()
        act.zero_grad()
        out = act(leaf)
        out.square().sum().backward()
        outputs.append((out.detach(), leaf.grad, act.norm.weight.grad, act.norm.bias.grad))
    assert torch.equal(outputs[0][0], outputs[1][0])
    for compiled, expression in zip(outputs[0][1:], outputs[1][1:], strict=True):
        torch.testing.assert_close(compiled, expression, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_given_parameters_give_the_same_codes_without_the_library(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    x, params = example(200, 31, dtype)
    with_library = kernels.affine_act(x, params, 7, 0.5, -1.5)
    operator = torch.ops.maqd.affine_act(x, params, 7, 0.5, -1.5)
    monkeypatch.setattr(kernels, "_LIBRARY", None)
    assert torch.equal(kernels.affine_act(x, params, 7, 0.5, -1.5), with_library)
    assert torch.equal(torch.ops.maqd.affine_act(x, params, 7, 0.5, -1.5), operator)
    assert torch.equal(operator, with_library)
