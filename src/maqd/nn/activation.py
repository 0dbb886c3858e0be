"""Activations: on their own, or with the normalization before them, which makes both one integer function."""

from collections.abc import Hashable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.nn.folding import Folded, versions
from maqd.nn.functional import (
    quantize_activation,
    require_exact_codes,
    scaled_activation,
    threshold_activation,
    with_gradient_of,
)
from maqd.nn.norm import FoldableNorm, Normalization
from maqd.nn.quantizers import ThresholdQuantizer
from maqd.numerics.fixedpoint import activation_cuts
from maqd.numerics.shared_scale import SharedScale, shared_scale
from maqd.numerics.states import FEW_STATES, States
from maqd.settings.quantization import Quantizer


class QuantActivation(nn.Module):
    """Scaled round-clip activation (MaQD), on values that are already normalized or on an integer stream.

    After a normalization use `NormActivation`: there alone evaluation is free of float rounding.

    Args:
        quantizer: States, step and surrogate; None for ReLU in float.
    """

    def __init__(self, quantizer: Quantizer | None) -> None:
        super().__init__()
        if isinstance(quantizer, ThresholdQuantizer):
            raise ConfigError(
                f"QuantActivation has no place for what {type(quantizer).__name__} learns; use NormActivation"
            )
        self.quantizer = quantizer
        self.rounding = True

    @property
    def states(self) -> States | None:
        """The states of the output, or None in float."""
        return None if self.quantizer is None else self.quantizer.states

    def forward(self, x: Tensor) -> Tensor:
        """Quantizes x, of any shape, element by element."""
        if self.quantizer is None:
            return torch.relu(x)
        if self.training:
            require_exact_codes(x, self.quantizer.states, type(self).__name__)
        return quantize_activation(x, self.quantizer) if self.rounding else clip(x, self.quantizer)

    def extra_repr(self) -> str:
        return describe(self.quantizer)


class NormActivation(Folded):
    """A normalization and the activation after it.

    Training fuses the two and stores nothing but its input for the backward pass. Evaluation compares the input, an
    integer times a power of two, with thresholds computed once from the parameters in exact arithmetic: the same
    integers on every device, and the function that lowering emits. Where gradients are recorded, evaluation has the
    surrogate's, with the statistics frozen.

    With more than 256 states there are no thresholds: scales of 21 bits with one shift for the layer, and a result
    rounded down (docs/numerics.md, section 6, "Many states"). Such activations train in float32 only.

    Args:
        norm: The normalization. A `LayerNorm` cannot be folded: it is evaluated in float.
        quantizer: States, step and surrogate of the activation; a `ThresholdQuantizer` for another method than MaQD's;
            None for ReLU in float.
    """

    thresholds: Tensor
    wide_thresholds: Tensor
    signs: Tensor
    scale: Tensor
    learned: nn.ParameterList | None

    def __init__(self, norm: Normalization, quantizer: Quantizer | None) -> None:
        super().__init__()
        if not isinstance(norm, Normalization):
            raise ConfigError(
                f"NormActivation needs a normalization of maqd.nn, which it can fold into thresholds, got "
                f"{type(norm).__name__}; use maqd.nn.BatchNorm or LayerBatchNorm"
            )
        self.norm = norm
        self.quantizer = quantizer
        self.rounding = True
        if quantizer is not None and not quantizer.states.few and isinstance(quantizer, ThresholdQuantizer):
            raise ConfigError(
                f"{type(quantizer).__name__} has a threshold for each of its states, got {quantizer.states.count}; "
                f"use at most {FEW_STATES} states, or MaQD's Quantizer"
            )
        learned = quantizer.initial() if isinstance(quantizer, ThresholdQuantizer) else ()
        self.learned = nn.ParameterList([nn.Parameter(value) for value in learned]) if learned else None
        self.register_buffer("thresholds", torch.empty(0), persistent=False)
        self.register_buffer("wide_thresholds", torch.empty(0), persistent=False)
        self.register_buffer("signs", torch.empty(0), persistent=False)
        self.register_buffer("scale", torch.empty(0), persistent=False)

    @property
    def states(self) -> States | None:
        """The states of the output, or None in float."""
        return None if self.quantizer is None else self.quantizer.states

    @property
    def _learned(self) -> tuple[Tensor, ...]:
        """What the quantizer learns beside the normalization's parameters."""
        return () if self.learned is None else tuple(self.learned)

    def cuts(self) -> NDArray[np.float64]:
        """The M-1 values of the normalization at which the code rises, ascending, as evaluation takes them.

        Raises:
            ConfigError: The activation is a ReLU in float.
        """
        if self.quantizer is None:
            raise ConfigError("NormActivation is a ReLU in float, and so has no cuts; give it a quantizer")
        if isinstance(self.quantizer, ThresholdQuantizer):
            return self.quantizer.exact_cuts(self._learned)
        return activation_cuts(self.quantizer.states, self.quantizer.step)

    def shared_scale(self) -> SharedScale:
        """What evaluation computes with many states.

        Raises:
            ConfigError: There are few states, or no normalization that can be folded.
        """
        if self.quantizer is None or self.quantizer.states.few or not isinstance(self.norm, FoldableNorm):
            raise ConfigError(f"NormActivation counts thresholds with up to {FEW_STATES} states; use cuts()")
        return shared_scale(*self.norm.affine_map(), self.quantizer.states, self.quantizer.step)

    def state_key(self) -> Hashable:
        """The normalization's and that of what the quantizer learns, if it is folded."""
        if self.quantizer is None or not isinstance(self.norm, FoldableNorm):
            return None
        return self.norm.state_key(), versions(*self._learned)

    def compute_integers(self) -> None:
        """The thresholds: for inputs in float32, and for those in float64 of layers with wide accumulators; with many
        states the shared scale.
        """
        if self.quantizer is None or not isinstance(self.norm, FoldableNorm):
            return
        device = self.norm.running_mean.device
        if not self.quantizer.states.few:
            self.scale = torch.from_numpy(np.stack(self.shared_scale().parts())).to(device)
        else:
            cuts = self.cuts()
            self.thresholds, self.signs = (tensor.to(device) for tensor in self.norm.thresholds(cuts))
            self.wide_thresholds = self.norm.thresholds(cuts, wide=True)[0].to(device)

    def outline(self, x: Tensor) -> Tensor:
        """What `forward` returns in evaluation for a tensor on the meta device: shape and dtype alone."""
        if isinstance(self.norm, Normalization):
            self.norm.check_input(x)
        return torch.empty_like(x, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """The activation of the normalized x; x has its channels in `norm.channel_dim`."""
        norm, quantizer = self.norm, self.quantizer
        if not isinstance(norm, Normalization):  # put in place of the first one, which was checked
            raise ConfigError(
                f"NormActivation holds {type(norm).__name__}, which it cannot fold, so the network could not be "
                "lowered; use maqd.nn.BatchNorm or LayerBatchNorm"
            )
        if quantizer is None:
            return torch.relu(norm(x))
        if not self.rounding:
            return clip(norm(x), quantizer)
        if self.training:
            require_exact_codes(x, quantizer.states, type(self).__name__)
        fused = not isinstance(quantizer, ThresholdQuantizer)
        if self.training and fused and isinstance(norm, FoldableNorm) and norm.training:
            return norm.normalize(x, quantizer)
        # A normalization set to evaluation by itself is frozen: its running statistics, with gradients.
        if self.training or not isinstance(norm, FoldableNorm):
            return self._quantize(norm(x), quantizer)
        norm.check_input(x)
        if not torch.compiler.is_compiling():
            self.fold()
        rows = norm.to_rows(x.detach())
        if not quantizer.states.few:
            slope, whole, rest = self.scale
            out = scaled_activation(rows, slope, whole, rest, quantizer)
        elif rows.dtype == torch.float64:
            out = threshold_activation(rows, self.wide_thresholds, self.signs, quantizer).float()
        else:
            out = threshold_activation(rows.float(), self.thresholds, self.signs, quantizer)
        out = norm.from_rows(out, x)
        parameters = (x, norm.weight, norm.bias, *self._learned)
        if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in parameters):
            out = with_gradient_of(out, self._quantize(norm.frozen(x), quantizer))
        return out

    def _quantize(self, y: Tensor, quantizer: Quantizer) -> Tensor:
        if isinstance(quantizer, ThresholdQuantizer):
            return quantizer.values(y, self._learned)
        return quantize_activation(y, quantizer)

    def extra_repr(self) -> str:
        return describe(self.quantizer)


def clip(y: Tensor, quantizer: Quantizer) -> Tensor:
    """A quantizer with infinitely many states between its first and last one.

    Raises:
        ConfigError: It is not MaQD's.
    """
    if isinstance(quantizer, ThresholdQuantizer):
        raise ConfigError(f"{type(quantizer).__name__} cannot train without rounding; start it from a float network")
    grid = quantizer.grid
    return torch.clamp(y, grid.low * grid.unit, grid.high * grid.unit)


def describe(quantizer: Quantizer | None) -> str:
    """One line for a module's representation."""
    if quantizer is None:
        return "relu"
    if isinstance(quantizer, ThresholdQuantizer):
        return f"states={quantizer.states.count}, step={quantizer.step:g}, {type(quantizer).__name__}"
    kind = "signed" if quantizer.states.signed else "unsigned"
    return f"states={quantizer.states.count}, {kind}, step={quantizer.step:g}, {quantizer.surrogate.profile.value}"
