"""What has no exact integer form: which layer, on which line, why, and what helps."""

from dataclasses import dataclass

from torch import nn

from maqd.errors import LoweringError
from maqd.nn import Normalization
from maqd.nn.tracing import LEAVES

OPERATIONS = "use the layers of maqd.nn, pooling layers, x + y, torch.cat, reshapes and flatten(1)"
"""A remedy where there is none in particular."""


_SMOOTH = "use NormActivation after a layer, or QuantActivation on sums of codes"
_LATER = "return the scores, and take it outside of the network"
_GATE = "multiply by a gate of few states: maqd.nn.hard_sigmoid(norm)"
_CONSTANT = "pad with F.pad(x, sizes, value=number), or add the number itself"
_MATRIX = "multiply element by element, x * y, or by weights: QuantLinear"

REMEDIES = {
    **dict.fromkeys(("sigmoid", "hardsigmoid", "where", "gt", "ge", "lt", "le", "eq"), _GATE),
    **dict.fromkeys(
        ("tanh", "gelu", "silu", "hardswish", "leaky_relu", "elu", "selu", "celu", "softplus", "mish", "prelu"), _SMOOTH
    ),
    **dict.fromkeys(("normalize", "layer_norm", "batch_norm", "group_norm", "rms_norm"), "use NormActivation"),
    **dict.fromkeys(("softmax", "log_softmax", "argmax", "topk", "sort"), _LATER),
    **dict.fromkeys(("matmul", "bmm", "einsum", "mm", "baddbmm", "scaled_dot_product_attention"), _MATRIX),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"), _CONSTANT),
}
"""Remedies for functions that people reach for, by name."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A call of a network that cannot be lowered.

    Args:
        module: The call's name: that of its module, or of a function after the module that calls it.
        line: The line of code of the call, "FILE:NUMBER: TEXT"; None where only library code makes the call.
        reason: Why it has no exact integer form.
        remedy: What to do instead.
    """

    module: str
    line: str | None
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.module}: {self.reason}; {self.remedy}" + (f" [{self.line}]" if self.line else "")


class RefusedError(LoweringError):
    """A network has calls that cannot be lowered: all of them, in order.

    Args:
        refusals: At least one.
    """

    def __init__(self, refusals: tuple[Refusal, ...]) -> None:
        lines = [str(refusal) for refusal in refusals]
        many = f"{len(lines)} calls have no exact integer form:"
        super().__init__(lines[0] if len(lines) == 1 else "\n  ".join([many, *lines]))
        self.refusals = refusals
        self.details = tuple(lines) if len(lines) > 1 else ()

    def __reduce__(self) -> tuple[type, tuple[tuple[Refusal, ...]]]:
        return type(self), (self.refusals,)


class RefusedCall(Exception):  # noqa: N818 - caught by the builder, which goes on with the next call
    """Raised by a rule: this call has no exact integer form.

    Args:
        reason, remedy: As in `Refusal`.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


def why_not(module: nn.Module) -> tuple[str, str]:
    """Reason and remedy for a layer that has no integer form."""
    kind = type(module).__name__
    if type(module) not in LEAVES and isinstance(module, LEAVES) and not type(module).__module__.startswith("maqd.nn."):
        return f"{kind} is a subclass, which may compute anything", "use the class of maqd.nn itself"
    if isinstance(module, Normalization) or "Norm" in kind:
        return (
            f"{kind} alone leaves a float after it",
            "put it inside of NormActivation: where no activation follows, with a signed quantizer of many states, "
            "NormActivation(norm, linear_quantizer(255))",
        )
    if isinstance(module, nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return f"{kind} has float weights", f"use Quant{kind}"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        return (
            f"{kind} has float weights",
            "use QuantConv1d, QuantConv2d or QuantLinear",
        )
    return f"{kind} has no integer form", REMEDIES.get(kind.lower(), OPERATIONS)
