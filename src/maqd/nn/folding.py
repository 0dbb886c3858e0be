"""What evaluation computes from the parameters once: integer codes and thresholds, kept up to date."""

from abc import abstractmethod
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn


def versions(*tensors: Tensor | None) -> Hashable:
    """A key that changes when a tensor is replaced or written to in place: what a cached value was computed from.

    Writes through `.data` and those of fused optimizers go unseen, so a change to evaluation mode always computes anew.
    """
    if any(t is not None and t.is_inference() for t in tensors):
        return object()  # inference tensors count no writes: a key that equals nothing
    return tuple(None if t is None else (t.data_ptr(), t._version, t.device) for t in tensors)


class Folded(nn.Module):
    """A module that computes its integer form from its parameters when evaluation begins."""

    def __init__(self) -> None:
        super().__init__()
        self._computed_from: Hashable = None
        self.register_load_state_dict_post_hook(_refold)

    def train(self, mode: bool = True) -> "Folded":
        """Switches the mode; a change to evaluation folds anew."""
        super().train(mode)
        if not mode:
            self.refold()
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Folded":
        """Moves and casts the parameters; the integer form stays in its own type, whatever theirs is."""
        super()._apply(fn, recurse)
        if not self.training and not any(tensor.is_meta for tensor in self.parameters()):
            self.refold()
        return self

    def refold(self) -> None:
        """Computes the integer form anew, whatever was seen of the parameters."""
        self._computed_from = None
        self.fold()

    def fold(self) -> None:
        """Computes the integer form, unless it is up to date."""
        if (key := self.state_key()) is not None and key != self._computed_from:
            # Folded under inference mode, the values could not be used where gradients are recorded later.
            with torch.inference_mode(False), torch.no_grad():
                self.compute_integers()
            self._computed_from = key

    @abstractmethod
    def state_key(self) -> Hashable:
        """What the integer form depends on (`versions`); None where there is none to compute."""

    @abstractmethod
    def compute_integers(self) -> None:
        """Writes the integer form into buffers."""


def _refold(module: Folded, _: object) -> None:
    if not module.training:
        module.refold()
