"""Normalizations: layer-batch, batch and layer, each usable alone or inside `NormActivation`."""

from abc import abstractmethod
from collections.abc import Hashable

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.nn.folding import versions
from maqd.nn.functional import Statistics, channel_moments, norm_act
from maqd.numerics.fixedpoint import input_thresholds
from maqd.settings.quantization import Affine, Norm, Quantizer


class Normalization(nn.Module):
    """A normalization followed by scales and offsets.

    Args:
        num_features: C, the number of channels.
        affine: One weight and bias per channel, for the whole layer, or none.
        eps: Added to the variance.
        channel_dim: Which dimension of the input holds the channels: 1 for N x C and N x C x H x W, -1 for
            N x T x C.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self, num_features: int, *, affine: Affine = Affine.CHANNEL, eps: float = 1e-5, channel_dim: int = 1
    ) -> None:
        super().__init__()
        if num_features < 1 or not eps > 0:
            raise ConfigError(
                f"{type(self).__name__} needs at least 1 feature and eps > 0, got {num_features} and {eps}"
            )
        self.num_features = num_features
        self.eps = eps
        self.channel_dim = channel_dim
        size = {Affine.CHANNEL: num_features, Affine.LAYER: 1, Affine.NONE: 0}[affine]
        self.weight = nn.Parameter(torch.ones(size)) if size else None
        self.bias = nn.Parameter(torch.zeros(size)) if size else None

    def check_input(self, x: Tensor) -> None:
        """Raises ConfigError unless the channel dimension has `num_features` entries."""
        if not -x.ndim <= self.channel_dim < x.ndim or x.shape[self.channel_dim] != self.num_features:
            raise ConfigError(
                f"{type(self).__name__} expects {self.num_features} channels in dimension {self.channel_dim}, got an "
                f"input of shape {tuple(x.shape)}; pass channel_dim=-1 for N x T x C"
            )

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Normalizes x, of any shape with C channels in `channel_dim`; same shape and dtype."""

    def to_rows(self, x: Tensor) -> Tensor:
        """A view of x with the channel dimension last; contiguous where x is channels_last in memory."""
        return x.movedim(self.channel_dim, -1)

    def from_rows(self, rows: Tensor, like: Tensor) -> Tensor:
        """The inverse of `to_rows`, with the strides of `like` where that is contiguous: `view` then works on it."""
        out = rows.movedim(-1, self.channel_dim)
        return out.contiguous() if like.is_contiguous() else out

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, channel_dim={self.channel_dim}"


class FoldableNorm(Normalization):
    """A normalization that is a fixed affine map per channel at inference: y = gain * (x - mean) + bias.

    In evaluation the map is followed by the exact comparisons that lowering emits; see `thresholds`.

    Args:
        momentum: Weight of a new batch in the running statistics.
        sync: Whether the processes of a distributed run share their statistics.
        num_features, affine, eps, channel_dim: As in `Normalization`.
    """

    per_channel: bool
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        affine: Affine = Affine.CHANNEL,
        eps: float = 1e-5,
        momentum: float = 0.1,
        channel_dim: int = 1,
        sync: bool = True,
    ) -> None:
        super().__init__(num_features, affine=affine, eps=eps, channel_dim=channel_dim)
        if not 0 < momentum <= 1:
            raise ConfigError(f"{type(self).__name__} needs 0 < momentum <= 1, got {momentum}")
        self.momentum = momentum
        self.sync = sync
        self.register_statistics(num_features)

    def register_statistics(self, num_features: int) -> None:
        """Makes the buffers of the running statistics."""
        size = (num_features,) if self.per_channel else ()
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))

    def _group(self) -> dist.ProcessGroup | None:
        if self.sync and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return dist.group.WORLD
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes x: with the statistics of the batch in training, with the running ones in evaluation."""
        return self.normalize(x, None) if self.training else self.frozen(x)

    def frozen(self, x: Tensor) -> Tensor:
        """Normalizes x with the running statistics, in float64; differentiable in x, weight and bias."""
        self.check_input(x)
        mean, rstd = self.running_statistics()
        y = (self.to_rows(x).double() - mean) * rstd
        if self.weight is not None and self.bias is not None:
            y = y * self.weight.double() + self.bias.double()
        return self.from_rows(y, x).to(x.dtype)

    def normalize(self, x: Tensor, quantizer: Quantizer | None) -> Tensor:
        """Batch statistics, normalization and the quantizer (if any) as one operation; updates the running values."""
        self.check_input(x)
        rows, group = self.to_rows(x), self._group()
        values = rows.numel() // (self.num_features if self.per_channel else 1)
        if values < 2 and group is None:
            raise ConfigError(
                f"{type(self).__name__} needs at least 2 values per statistic in training, got {values} from an input "
                f"of shape {tuple(x.shape)}; use a larger batch" + (" or LayerBatchNorm" if self.per_channel else "")
            )
        with torch.no_grad():
            statistics = self.update(*channel_moments(rows, group), group)
        out = norm_act(rows, self.weight, self.bias, statistics, quantizer)
        return self.from_rows(out, x)

    @abstractmethod
    def update(self, moments: Tensor, count: Tensor, group: dist.ProcessGroup | None) -> Statistics:
        """Statistics from the sums of a batch (2 x C) and its values per channel; moves the running ones."""

    def move_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Exponential moving average of the mean and the unbiased variance."""
        unbiased = variance * (count / (count - 1))
        self.running_mean.lerp_(mean.reshape(self.running_mean.shape).to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.reshape(self.running_var.shape).to(self.running_var.dtype), self.momentum)

    def running_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and reciprocal standard deviation of inference, float64, C or one value."""
        # A square root and a division are correctly rounded on every device; rsqrt need not be.
        return self.running_mean.double(), 1 / torch.sqrt(self.running_var.double() + self.eps)

    def affine_map(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The folded map y = gain * (x - mean) + bias: gain, mean and bias, each float64 of C.

        gain is the float64 nearest to weight * rstd with rstd the float64 nearest to 1 / sqrt(running_var + eps):
        this defines the function that evaluation and lowering compute exactly.
        """
        mean, rstd = self.running_statistics()
        gain = rstd if self.weight is None else rstd * self.weight.detach().double()
        bias = torch.zeros(()) if self.bias is None else self.bias.detach().double()
        columns = [value.cpu().double().expand(self.num_features).numpy().copy() for value in (gain, mean, bias)]
        return columns[0], columns[1], columns[2]

    def thresholds(self, cuts: NDArray[np.float64], *, wide: bool = False) -> tuple[Tensor, Tensor]:
        """Thresholds K x C and signs C, float32 on the CPU; see `maqd.numerics.fixedpoint.input_thresholds`.

        Args:
            cuts: The K values of y at which a code rises, ascending.
            wide: Whether inputs are float64 values of up to 32 bits; the thresholds are then float64, too.
        """
        thresholds, signs = input_thresholds(*self.affine_map(), cuts, wide=wide)
        return torch.from_numpy(thresholds), torch.from_numpy(signs)

    def state_key(self) -> Hashable:
        """Changes when the folded map may have changed."""
        return versions(self.weight, self.bias, self.running_mean, self.running_var)


class LayerBatchNorm(FoldableNorm):
    """Layer-Batch Normalization (MaQD, arXiv 2403.14999): one mean and variance over batch, channels and space.

        y = weight[c] * (x - mean) / sqrt(var + eps) + bias[c]

    Training takes the mean and the biased variance over all elements of x, in float64 sums; the running statistics
    are two scalars (the variance unbiased). Works at any mini-batch size, one included, and folds away at inference.
    In a distributed run the processes share two sums, so that their batches count as one.

    Args:
        num_features: C, the number of channels.
        affine: One weight and bias per channel, for the whole layer, or none.
        eps: Added to the variance.
        momentum: Weight of a new batch in the running statistics.
        channel_dim: 1 for N x C, N x C x L, N x C x H x W and N x C x D x H x W; -1 for N x T x C.
        sync: Whether the processes of a distributed run share their statistics.
    """

    per_channel = False

    def update(self, moments: Tensor, count: Tensor, group: dist.ProcessGroup | None) -> Statistics:
        """One mean and variance for all channels."""
        return self.scalar_statistics(moments, count, group)

    def scalar_statistics(self, moments: Tensor, count: Tensor, group: dist.ProcessGroup | None) -> Statistics:
        """Mean and variance of everything; moves the running scalars."""
        values = count * moments.shape[1]
        mean, square = moments.sum(1, keepdim=True) / values
        variance = torch.clamp_min(square - mean * mean, 0)
        self.move_running(mean, variance, values)
        return Statistics(mean=mean, rstd=torch.rsqrt(variance + self.eps), count=count, group=group)


class LevelledLayerBatchNorm(LayerBatchNorm):
    """Layer-Batch Normalization of levelled channels, for residual networks.

        z = (x - level_mean[c]) / sqrt(level_var[c] + eps)
        y = weight[c] * (z - mean(z)) / sqrt(var(z) + eps) + bias[c]

    The levels are running averages of each channel's mean and variance. The statistics of the batch that the output
    depends on remain LBN's two scalars, so it trains at any mini-batch size, and it folds into the same thresholds.

    The gradient is that of batch normalization with the levels for its statistics (as in batch renormalization,
    arXiv 1702.03275): it has no part that shifts or scales a whole channel, which the levels would undo. Plain LBN's
    gradient has such a part, and residual networks train more slowly with it (docs/recipes.md has the measurements).
    With n values per channel it is blended with LBN's in the ratio 1 - 1/n to 1/n. So a single value is no special
    case: there it is LBN's.

    Args:
        num_features, affine, eps, momentum, channel_dim, sync: As in `LayerBatchNorm`.
    """

    level_mean: Tensor
    level_var: Tensor
    batches: Tensor

    def register_statistics(self, num_features: int) -> None:
        """The scalars of LBN, and the levels with the number of batches that they were averaged over."""
        super().register_statistics(num_features)
        self.register_buffer("level_mean", torch.zeros(num_features))
        self.register_buffer("level_var", torch.ones(num_features))
        self.register_buffer("batches", torch.zeros(()))

    def update(self, moments: Tensor, count: Tensor, group: dist.ProcessGroup | None) -> Statistics:
        """Levels the channels with what was known before this batch, then one mean and variance for all."""
        channel_mean, channel_square = moments / count
        channel_var = torch.clamp_min(channel_square - channel_mean * channel_mean, 0)
        self.batches += 1
        blend = torch.clamp_min(1 / self.batches, self.momentum)
        first = self.batches == 1  # levels of the first batch are its own, or it would not be levelled at all
        level_mean = torch.where(first, channel_mean, self.level_mean.double())
        level_rstd = torch.rsqrt(torch.where(first, channel_var, self.level_var.double()) + self.eps)
        self.level_mean.lerp_(channel_mean.to(self.level_mean.dtype), blend)
        self.level_var.lerp_(channel_var.to(self.level_var.dtype), blend)
        shifted = channel_mean - level_mean
        levelled = torch.stack([shifted * level_rstd, (channel_var + shifted * shifted) * level_rstd**2]) * count
        scalar = self.scalar_statistics(levelled, count, group)
        return Statistics(
            mean=level_mean + scalar.mean / level_rstd,
            rstd=level_rstd * scalar.rstd,
            count=count,
            own=1 - 1 / count,
            group=group,
        )

    def running_statistics(self) -> tuple[Tensor, Tensor]:
        """As in `FoldableNorm`, with the levels folded in."""
        mean, rstd = super().running_statistics()
        deviation = torch.sqrt(self.level_var.double() + self.eps)
        return self.level_mean.double() + mean * deviation, rstd / deviation

    def state_key(self) -> Hashable:
        return super().state_key(), versions(self.level_mean, self.level_var)


class BatchNorm(FoldableNorm):
    """Batch normalization (Ioffe and Szegedy, arXiv 1502.03167): one mean and variance per channel.

    The same function and state as `torch.nn.BatchNorm2d`, for any rank, fused with the activation in training. Folds
    like LBN, and needs batches large enough for its statistics.

    Args:
        num_features, affine, eps, momentum, channel_dim, sync: As in `LayerBatchNorm`.
    """

    per_channel = True

    def update(self, moments: Tensor, count: Tensor, group: dist.ProcessGroup | None) -> Statistics:
        """A mean and variance for each channel."""
        mean, square = moments / count
        variance = torch.clamp_min(square - mean * mean, 0)
        self.move_running(mean, variance, count)
        rstd = torch.rsqrt(variance + self.eps)
        return Statistics(mean=mean, rstd=rstd, count=count, own=torch.ones_like(count), group=group)


class ChannelMap(FoldableNorm):
    """A scale and an offset per channel without any statistics: y = weight[c] * x + bias[c].

    It takes the place of a normalization in `NormActivation` where a network has none, as converted float networks may.
    Both parameters train.

    Args:
        num_features, affine, channel_dim: As in `Normalization`.
    """

    per_channel = False

    def __init__(self, num_features: int, *, affine: Affine = Affine.CHANNEL, channel_dim: int = 1) -> None:
        super().__init__(num_features, affine=affine, channel_dim=channel_dim)

    def register_statistics(self, num_features: int) -> None:
        """None is saved; the mean only says which device the layer is on."""
        self.register_buffer("running_mean", torch.zeros(()), persistent=False)

    def running_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean 0 and standard deviation 1."""
        return torch.zeros_like(self.running_mean, dtype=torch.float64), torch.ones_like(
            self.running_mean, dtype=torch.float64
        )

    def normalize(self, x: Tensor, quantizer: Quantizer | None) -> Tensor:
        """The map and the quantizer (if any) as one operation."""
        self.check_input(x)
        mean, rstd = (value.reshape(1) for value in self.running_statistics())
        # With an infinite count no value changes the statistics: the gradient is that of the map alone.
        statistics = Statistics(mean=mean, rstd=rstd, count=torch.full_like(mean, torch.inf))
        return self.from_rows(norm_act(self.to_rows(x), self.weight, self.bias, statistics, quantizer), x)

    def update(self, moments: Tensor, count: Tensor, group: dist.ProcessGroup | None) -> Statistics:
        """Never called: there are no statistics."""
        raise NotImplementedError

    def state_key(self) -> Hashable:
        return versions(self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.num_features}, channel_dim={self.channel_dim}"


class ExtendedBatchNorm(FoldableNorm):
    """Extended batch normalization (Luo et al., arXiv 2003.05569): a mean per channel, one variance for all.

        y = weight[c] * (x - mean[c]) / sqrt(var + eps) + bias[c],   var = mean over everything of (x - mean[c])^2

    Between batch and layer-batch normalization: it removes the mean of each channel, and keeps the ratios of their
    scales. Folds like both.

    Args:
        num_features, affine, eps, momentum, channel_dim, sync: As in `LayerBatchNorm`.
    """

    per_channel = True

    def register_statistics(self, num_features: int) -> None:
        """A mean per channel, one variance."""
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(()))

    def update(self, moments: Tensor, count: Tensor, group: dist.ProcessGroup | None) -> Statistics:
        """A mean for each channel, and the mean of their variances."""
        mean, square = moments / count
        variance = torch.clamp_min(square - mean * mean, 0).mean().reshape(1)
        self.move_running(mean, variance, count * moments.shape[1])
        own = torch.stack([torch.ones_like(count), torch.zeros_like(count)])
        rstd = torch.rsqrt(variance + self.eps)
        return Statistics(mean=mean, rstd=rstd, count=count, own=own, group=group)


class LayerNorm(Normalization):
    """Layer normalization (Ba et al., arXiv 1607.06450): one mean and variance per sample, over channels and space.

    For comparison: its statistics depend on the sample at inference, so it cannot be folded and lowering refuses it.

    Args:
        num_features, affine, eps, channel_dim: As in `Normalization`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes every sample of x by itself."""
        self.check_input(x)
        wide = x if x.dtype == torch.float64 else x.float()
        variance, mean = torch.var_mean(wide, dim=tuple(range(1, x.ndim)), keepdim=True, correction=0)
        y = self.to_rows((wide - mean) * torch.rsqrt(variance + self.eps))
        if self.weight is not None and self.bias is not None:
            y = y * self.weight + self.bias
        return self.from_rows(y, x).to(x.dtype)


def make_norm(kind: Norm, num_features: int, *, affine: Affine = Affine.CHANNEL, channel_dim: int = 1) -> Normalization:
    """The normalization of that kind."""
    classes = {
        Norm.LBN: LayerBatchNorm,
        Norm.LEVELLED_LBN: LevelledLayerBatchNorm,
        Norm.BN: BatchNorm,
        Norm.EBN: ExtendedBatchNorm,
        Norm.LN: LayerNorm,
    }
    return classes[kind](num_features, affine=affine, channel_dim=channel_dim)
