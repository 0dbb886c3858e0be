"""Normalizations against plain float64 formulas, gradcheck, and `torch.nn.BatchNorm`."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.nn import (
    Affine,
    BatchNorm,
    ExtendedBatchNorm,
    LayerBatchNorm,
    LayerNorm,
    LevelledLayerBatchNorm,
    Norm,
    Normalization,
    make_norm,
)
from maqd.nn.norm import FoldableNorm

C = 6
FOLDABLE = [LayerBatchNorm, LevelledLayerBatchNorm, BatchNorm, ExtendedBatchNorm]
ALL = [*FOLDABLE, LayerNorm]
SHAPES = {
    "NC": ((8, C), 1),
    "NCL": ((3, C, 5), 1),
    "NTC": ((3, 5, C), -1),
    "NCHW": ((3, C, 4, 5), 1),
    "NCDHW": ((2, C, 2, 3, 2), 1),
}
shapes = pytest.mark.parametrize(("shape", "dim"), SHAPES.values(), ids=SHAPES.keys())


def randomize(norm: Normalization) -> Normalization:
    """Parameters that a mistake cannot hide behind, some of them negative or zero."""
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def sample(shape: tuple[int, ...], dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Channels of different means and scales."""
    x = torch.randn(shape, dtype=dtype).movedim(dim, -1)
    return (x * torch.linspace(0.5, 3, C, dtype=dtype) + torch.linspace(-2, 1, C, dtype=dtype)).movedim(-1, dim)


class Reference:
    """All normalizations in float64 NumPy, with the channels last, and their running statistics."""

    def __init__(self, norm: Normalization) -> None:
        self.norm = norm
        self.mean = self.var = None
        self.levels: tuple[np.ndarray, np.ndarray] | None = None
        if isinstance(norm, FoldableNorm):
            self.mean, self.var = norm.running_mean.double().numpy().copy(), norm.running_var.double().numpy().copy()
        self.batches = 0

    def affine(self, z: np.ndarray) -> np.ndarray:
        weight, bias = self.norm.weight, self.norm.bias
        return z if weight is None else z * weight.detach().double().numpy() + bias.detach().double().numpy()

    def move(self, mean: np.ndarray, var: np.ndarray) -> None:
        momentum = self.norm.momentum
        self.mean = (1 - momentum) * self.mean + momentum * mean
        self.var = (1 - momentum) * self.var + momentum * var

    def level(self, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        mean, var = x.mean(axes), x.var(axes)
        self.batches += 1
        used = (mean, var) if self.levels is None else self.levels
        blend = max(1 / self.batches, self.norm.momentum)
        known = (np.zeros(C), np.ones(C)) if self.levels is None else self.levels
        self.levels = tuple((1 - blend) * old + blend * new for old, new in zip(known, (mean, var), strict=True))
        return (x - used[0]) / np.sqrt(used[1] + self.norm.eps)

    def train(self, x: np.ndarray) -> np.ndarray:
        axes = tuple(range(x.ndim - 1))
        eps = self.norm.eps
        if isinstance(self.norm, LayerNorm):
            inner = tuple(range(1, x.ndim))
            return self.affine((x - x.mean(inner, keepdims=True)) / np.sqrt(x.var(inner, keepdims=True) + eps))
        if isinstance(self.norm, LevelledLayerBatchNorm):
            x = self.level(x, axes)
        if isinstance(self.norm, ExtendedBatchNorm):
            centred = x - x.mean(axes)
            self.move(x.mean(axes), centred.var(ddof=1))
            return self.affine(centred / np.sqrt(centred.var() + eps))
        over = axes if isinstance(self.norm, BatchNorm) else None
        self.move(x.mean(over), x.var(over, ddof=1))
        return self.affine((x - x.mean(over)) / np.sqrt(x.var(over) + eps))

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        if isinstance(self.norm, LayerNorm):
            return self.train(x)
        if self.levels is not None:
            x = (x - self.levels[0]) / np.sqrt(self.levels[1] + self.norm.eps)
        return self.affine((x - self.mean) / np.sqrt(self.var + self.norm.eps))


def rows(x: Tensor, dim: int) -> np.ndarray:
    return x.detach().double().movedim(dim, -1).numpy()


@shapes
@pytest.mark.parametrize("affine", Affine)
@pytest.mark.parametrize("kind", ALL)
def test_training_and_evaluation_equal_the_float64_formulas(
    kind: type[Normalization], affine: Affine, shape: tuple[int, ...], dim: int
):
    """Over several steps, so that the running statistics count."""
    norm = randomize(kind(C, affine=affine, channel_dim=dim)).double()
    if isinstance(norm, FoldableNorm):
        norm.momentum = 0.4  # of the third batch on, more than its share: levels stop being plain averages
    sizes = {Affine.CHANNEL: C, Affine.LAYER: 1, Affine.NONE: 0}
    assert sum(p.numel() for p in norm.parameters()) == 2 * sizes[affine]
    reference = Reference(norm)
    for _ in range(4):
        x = sample(shape, dim)
        y = norm(x)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        np.testing.assert_allclose(rows(y, dim), reference.train(rows(x, dim)), rtol=1e-10, atol=1e-10)
    if isinstance(norm, FoldableNorm):
        np.testing.assert_allclose(norm.running_mean.numpy(), reference.mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(norm.running_var.numpy(), reference.var, rtol=1e-10)
    norm.eval()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = sample(shape, dim)
    np.testing.assert_allclose(rows(norm(x), dim), reference.evaluate(rows(x, dim)), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@shapes
@pytest.mark.parametrize("kind", FOLDABLE)
def test_the_folded_map_is_what_evaluation_computes(kind: type[FoldableNorm], shape: tuple[int, ...], dim: int):
    norm = randomize(kind(C, channel_dim=dim)).double()
    for _ in range(3):
        norm(sample(shape, dim))
    norm.eval()
    x = sample(shape, dim)
    gain, mean, bias = norm.affine_map()
    assert all(value.dtype == np.float64 and value.shape == (C,) for value in (gain, mean, bias))
    np.testing.assert_allclose(rows(norm(x), dim), gain * (rows(x, dim) - mean) + bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("shape", [(1, C, 4, 4), (1, C, 1, 2), (1, C, 3)])
def test_one_sample_is_a_batch(kind: type[Normalization], shape: tuple[int, ...]):
    norm = randomize(kind(C)).double()
    x = sample(shape, 1)
    np.testing.assert_allclose(rows(norm(x), 1), Reference(norm).train(rows(x, 1)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [LayerBatchNorm, LevelledLayerBatchNorm, LayerNorm])
def test_one_vector_of_features_is_a_batch(kind: type[Normalization]):
    norm = kind(C).double()
    x = sample((1, C), 1)
    y = norm(x).detach()
    assert y.isfinite().all()
    if kind is not LevelledLayerBatchNorm:  # a levelled channel of one value is zero
        np.testing.assert_allclose(y.mean(), 0, atol=1e-12)
        np.testing.assert_allclose(y.var(correction=0), 1, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, C), (1, C, 1, 1)])
@pytest.mark.parametrize("kind", [BatchNorm, ExtendedBatchNorm])
def test_statistics_per_channel_refuse_one_value(kind: type[FoldableNorm], shape: tuple[int, ...]):
    norm = kind(C)
    with pytest.raises(ConfigError, match=r"at least 2 values per statistic.*got 1 .*LayerBatchNorm"):
        norm(torch.randn(shape))
    assert torch.equal(norm.running_mean, torch.zeros(C))
    assert norm.eval()(torch.randn(shape)).shape == shape


def test_layer_batch_norm_refuses_a_single_value():
    with pytest.raises(ConfigError, match="at least 2 values per statistic"):
        LayerBatchNorm(1)(torch.randn(1, 1))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "dim"), [((4, C + 1, 3, 3), 1), ((4, 3, 3, C), 1), ((4, C, 3), -1), ((C,), 1)])
def test_a_wrong_number_of_channels_is_refused(
    kind: type[Normalization], training: bool, shape: tuple[int, ...], dim: int
):
    with pytest.raises(ConfigError, match=rf"expects {C} channels in dimension {dim}, got an input of shape"):
        kind(C, channel_dim=dim).train(training)(torch.randn(shape))


@pytest.mark.parametrize("kind", ALL)
def test_options_out_of_range_are_refused(kind: type[Normalization]):
    for options in ({"num_features": 0}, {"eps": 0.0}, {"eps": -1e-5}, {"eps": math.nan}):
        with pytest.raises(ConfigError, match=kind.__name__):
            kind(**{"num_features": C, **options})
    if issubclass(kind, FoldableNorm):
        for momentum in (0.0, -0.1, 1.5, math.nan):
            with pytest.raises(ConfigError, match="momentum"):
                kind(C, momentum=momentum)


def test_every_kind_can_be_made_by_name():
    made = {kind: type(make_norm(kind, C, affine=Affine.LAYER, channel_dim=-1)) for kind in Norm}
    assert set(made.values()) == set(ALL)
    assert len(made) == len(ALL)


# ---- layouts and dtypes ----------------------------------------------------------------------------------------------


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same values in other strides."""
    wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
    wide[..., ::2] = x
    return {
        "channels_last": x.to(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "strided": wide[..., ::2],
        "flipped batch": x.flip(0).contiguous().flip(0),
        "expanded": x[:1].expand_as(x) if torch.equal(x, x[:1].expand_as(x)) else x,
    }


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", FOLDABLE)
def test_memory_layout_changes_no_bit(kind: type[FoldableNorm], training: bool):
    """Rows are made contiguous in one order, so that not even the order of sums depends on the layout."""
    x = sample((4, C, 3, 5), 1, torch.float32)
    grad = torch.randn_like(x)
    state = randomize(kind(C)).state_dict()

    def run(x: Tensor) -> list[Tensor]:
        norm = kind(C).train(training)
        norm.load_state_dict(state)
        leaf = x.detach().requires_grad_()
        y = norm(leaf)
        y.backward(grad)
        assert leaf.grad is not None
        return [y.detach(), leaf.grad, *norm.state_dict().values()]

    expected = run(x)
    for other in layouts(x).values():
        assert torch.equal(other, x)
        assert all(torch.equal(a, b) for a, b in zip(run(other), expected, strict=True))


@pytest.mark.parametrize("kind", [LayerBatchNorm, BatchNorm])
def test_channels_last_images_stay_channels_last(kind: type[FoldableNorm]):
    x = torch.randn(2, C, 4, 4).to(memory_format=torch.channels_last)
    assert kind(C)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2.0**-20), (torch.bfloat16, 2.0**-8)])
def test_narrow_inputs_lose_only_their_own_rounding(kind: type[Normalization], dtype: torch.dtype, unit: float):
    """Statistics are wider than the input; an output of magnitude v is off by at most (1 + |v|) units."""
    x = sample((4, C, 6, 6), 1).to(dtype)
    norm = randomize(kind(C))
    y = norm(x)
    assert y.dtype == dtype
    expected = Reference(norm).train(rows(x, 1))
    assert (np.abs(rows(y, 1) - expected) <= unit * (1 + np.abs(expected))).all()


@pytest.mark.parametrize("kind", FOLDABLE)
@pytest.mark.parametrize("far", [1e3, -1e3])
def test_a_mean_of_1000_deviations_costs_no_accuracy_beyond_rounding_of_the_map(kind: type[FoldableNorm], far: float):
    """Outputs a x + b with |a x|, |b| up to 1000 |gamma|: each rounding in float32 costs 2^-24 of that.

    The variance itself must not suffer: sums of squares in float32 would lose it altogether.
    """
    norm = randomize(kind(C))
    x = (torch.randn(16, C, 8, 8) + far).float()
    reference = Reference(norm)
    expected = reference.train(rows(x, 1))
    y = rows(norm(x), 1)
    weight = np.abs(norm.weight.detach().numpy())
    assert (np.abs(y - expected) <= 6 * 2.0**-24 * 1010 * (weight + 0.1)).all()
    np.testing.assert_allclose(norm.running_var.numpy(), reference.var, rtol=1e-6)
    np.testing.assert_allclose(norm.running_mean.numpy(), reference.mean, rtol=1e-6, atol=1e-6)


# ---- gradients -------------------------------------------------------------------------------------------------------


@shapes
@pytest.mark.parametrize("affine", Affine)
@pytest.mark.parametrize("kind", ALL)
def test_gradients_pass_gradcheck(kind: type[Normalization], affine: Affine, shape: tuple[int, ...], dim: int):
    """Through the statistics; levels have a gradient of their own kind, so only their parameters are checked here."""
    norm = randomize(kind(C, affine=affine, channel_dim=dim)).double()
    if isinstance(norm, LevelledLayerBatchNorm):
        norm.momentum = 1e-30
        nn.init.constant_(norm.batches, 1e30)
        nn.init.normal_(norm.level_mean)
        nn.init.uniform_(norm.level_var, 0.5, 2)
    parameters = list(norm.parameters())
    small = tuple(min(size, 3) if i != dim % len(shape) else size for i, size in enumerate(shape))
    x = sample(small, dim).requires_grad_(kind is not LevelledLayerBatchNorm)
    if x.requires_grad or parameters:
        assert torch.autograd.gradcheck(lambda x, *_: norm(x), (x, *parameters))


@pytest.mark.parametrize("kind", FOLDABLE)
def test_evaluation_passes_gradients_to_its_input(kind: type[FoldableNorm]):
    norm = randomize(kind(C)).double().eval()
    assert torch.autograd.gradcheck(norm, sample((3, C), 1).requires_grad_())


@pytest.mark.parametrize("kind", FOLDABLE)
def test_evaluation_passes_gradients_to_its_parameters(kind: type[FoldableNorm]):
    """As torch.nn.BatchNorm2d does: fine-tuning with frozen statistics trains scales and offsets."""
    norm = randomize(kind(C)).eval()
    norm(sample((3, C), 1, torch.float32).requires_grad_()).sum().backward()
    assert norm.weight.grad is not None


@pytest.mark.parametrize("shape", [(8, C, 3), (2, C, 1), (1, C, 1)])
def test_gradient_of_levelled_channels_blends_that_of_bn_and_lbn(shape: tuple[int, ...]):
    """D x = rstd (w h - m1 - xhat m2) with means over each channel and over all, as 1 - 1/n to 1/n."""
    norm = randomize(LevelledLayerBatchNorm(C, momentum=1e-30)).double()
    nn.init.constant_(norm.batches, 1e30)
    nn.init.normal_(norm.level_mean)
    nn.init.uniform_(norm.level_var, 0.5, 2)
    x, h = sample(shape, 1).requires_grad_(), sample(shape, 1)
    (grad,) = torch.autograd.grad(norm(x), x, h)

    column = (1, C, 1)
    deviation = torch.sqrt(norm.level_var + norm.eps).reshape(column)
    z = (x.detach() - norm.level_mean.reshape(column)) / deviation
    scale = torch.sqrt(z.var(correction=0) + norm.eps)
    xhat, rstd = (z - z.mean()) / scale, 1 / (scale * deviation)
    weighted = norm.weight.detach().reshape(column) * h
    own = 1 - 1 / (shape[0] * shape[2])
    means = [own * value.mean((0, 2), keepdim=True) + (1 - own) * value.mean() for value in (weighted, weighted * xhat)]
    torch.testing.assert_close(grad, rstd * (weighted - means[0] - xhat * means[1]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [LayerBatchNorm, BatchNorm, ExtendedBatchNorm])
def test_gradient_of_a_normalization_is_orthogonal_to_what_it_removes(kind: type[FoldableNorm]):
    """Shifting or scaling all inputs changes nothing (but for eps), so the gradient has no part along either."""
    norm = kind(C, eps=1e-12).double()
    x = sample((8, C, 3), 1).requires_grad_()
    (grad,) = torch.autograd.grad(norm(x), x, torch.randn(8, C, 3, dtype=torch.float64))
    assert grad.abs().sum() > 1
    assert abs(grad.sum().item()) < 1e-9 * grad.abs().sum().item()
    assert abs((grad * x).sum().item()) < 1e-9 * grad.abs().sum().item()


# ---- torch.nn.BatchNorm ----------------------------------------------------------------------------------------------

PEERS = {
    (8, C): nn.BatchNorm1d,
    (3, C, 5): nn.BatchNorm1d,
    (3, C, 4, 5): nn.BatchNorm2d,
    (2, C, 2, 3, 2): nn.BatchNorm3d,
}


@pytest.mark.parametrize(("shape", "peer"), PEERS.items())
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_batch_norm_equals_pytorch(shape: tuple[int, ...], peer: type, affine: bool, momentum: float):
    theirs = peer(C, affine=affine, momentum=momentum).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours = BatchNorm(C, affine=Affine.CHANNEL if affine else Affine.NONE, momentum=momentum).double()
    extra = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert extra.missing_keys == []
    assert extra.unexpected_keys == ["num_batches_tracked"]
    for _ in range(3):
        x = sample(shape, 1)
        grad = torch.randn_like(x)
        results = []
        for norm in (ours, theirs):
            leaf = x.clone().requires_grad_()
            norm.zero_grad()
            norm(leaf).backward(grad)
            results.append([leaf.grad, *(p.grad for p in norm.parameters()), norm.running_mean, norm.running_var])
        for mine, other in zip(*results, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)
    x = sample(shape, 1)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-10, atol=1e-10)


def test_layer_norm_equals_pytorch_without_affine():
    x = sample((3, C, 4, 5), 1)
    expected = nn.functional.layer_norm(x, x.shape[1:])
    torch.testing.assert_close(LayerNorm(C).double()(x), expected, rtol=1e-12, atol=1e-12)


def test_state_dicts_have_the_documented_names():
    running = ["weight", "bias", "running_mean", "running_var"]
    assert list(BatchNorm(C).state_dict()) == list(ExtendedBatchNorm(C).state_dict()) == running
    assert list(LayerBatchNorm(C).state_dict()) == running
    assert list(LevelledLayerBatchNorm(C).state_dict()) == [*running, "level_mean", "level_var", "batches"]
    assert list(LayerNorm(C, affine=Affine.NONE).state_dict()) == []
    assert LayerBatchNorm(C).running_mean.shape == ()


@pytest.mark.parametrize("kind", FOLDABLE)
def test_saved_state_continues_the_running_statistics(kind: type[FoldableNorm]):
    norm = randomize(kind(C))
    batches = [sample((4, C, 3), 1, torch.float32) for _ in range(4)]
    for x in batches[:2]:
        norm(x)
    other = kind(C)
    other.load_state_dict(norm.state_dict())
    for x in batches[2:]:
        assert torch.equal(norm(x), other(x))
    assert torch.equal(norm.eval()(batches[0]), other.eval()(batches[0]))
