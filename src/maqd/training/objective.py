"""What a run minimizes and what it reports: cross-entropy and accuracy, or a loss and a metric of the user."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from maqd.errors import ConfigError
from maqd.nn.calling import Inputs, each
from maqd.settings.functions import import_function
from maqd.settings.training import TrainConfig
from maqd.training.checkpoint import Evaluation
from maqd.training.environment import distributed
from maqd.training.networks import batch_type, trial


def in_float32(outputs: Any) -> Any:
    """The outputs of a network, which may be tuples, lists and dicts of tensors, with all floats in float32."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, Mapping):
        return {key: in_float32(value) for key, value in outputs.items()}
    if isinstance(outputs, tuple | list):
        return type(outputs)(in_float32(value) for value in outputs)
    return outputs


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of training and what is evaluated.

    Args:
        loss: From outputs and targets to a scalar, the mean over the batch; None is cross-entropy.
        metric: From outputs and targets to a number for each sample, or to the mean of the batch; None for none.
        label_smoothing: Of cross-entropy in training.
        counts: Whether right answers are counted.
    """

    loss: Callable[[Any, Any], Tensor] | None
    metric: Callable[[Any, Any], Any] | None
    label_smoothing: float
    counts: bool

    @classmethod
    def of(cls, config: TrainConfig) -> "Objective":
        """That of a run; imports its functions.

        Raises:
            ConfigError: There is no such function.
        """
        return cls(
            loss=None if config.loss is None else import_function(config.loss),
            metric=None if config.metric is None else import_function(config.metric),
            label_smoothing=config.label_smoothing,
            counts=config.classifies,
        )

    def training_loss(self, outputs: Any, targets: Any) -> Tensor:
        """The scalar to minimize, computed from outputs in float32."""
        if self.loss is not None:
            return self.loss(in_float32(outputs), targets)
        return F.cross_entropy(outputs.float(), targets, label_smoothing=self.label_smoothing)


class Sums:
    """Sums over batches that are evaluated, on their device: right answers, answers, loss, metric.

    Args:
        objective: What is evaluated.
        device: Where the network is.
    """

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.objective = objective
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, outputs: Any, targets: Any, samples: int) -> None:
        """Take a batch.

        Args:
            outputs: Of the network.
            targets: As the data set gives them. With cross-entropy int64, N or N x positions, and the outputs float
                logits N x classes x positions.
            samples: N.
        """
        correct = metric = torch.zeros((), dtype=torch.float64, device=self.sums.device)
        total = float(samples)
        if self.objective.loss is None:
            total = float(targets.numel())
            loss = F.cross_entropy(outputs.double(), targets, reduction="sum")
            correct = (outputs.argmax(dim=1) == targets).sum().double()
        else:
            loss = self.objective.loss(in_float32(outputs), targets).double() * samples
        if self.objective.metric is not None:
            value = torch.as_tensor(self.objective.metric(in_float32(outputs), targets), device=self.sums.device)
            metric = value.double().mean() * total
        self.sums += torch.stack([correct, torch.full_like(correct, total), loss, metric])

    def read(self) -> Evaluation:
        """The result over all processes."""
        if distributed():
            dist.all_reduce(self.sums)
        correct, total, loss, metric = self.sums.tolist()
        return Evaluation(
            correct=round(correct) if self.objective.counts else None,
            total=round(total),
            loss=loss / total,
            metric=None if self.objective.metric is None else metric / total,
        )


@torch.no_grad()
def check_objective(network: nn.Module, inputs: Inputs, targets: Any, objective: Objective, where: str) -> None:
    """Check that a network, its data and its objective go together, before a run begins.

    Args:
        network: Left as it is.
        inputs: A batch.
        targets: Its targets.
        objective: The objective.
        where: What the network is called, for messages.

    Raises:
        ConfigError: The network fails on the batch, or its outputs do not fit the loss or the metric.
    """
    outputs = trial(network, inputs, where)
    samples = len(each(inputs)[0])
    if objective.loss is None:
        _check_logits(outputs, targets, where)
    for option, function in (("loss", objective.loss), ("metric", objective.metric)):
        if function is None:
            continue
        try:
            value = function(in_float32(outputs), targets)
        except Exception as error:  # whatever the caller's code raises
            raise ConfigError(
                f"the {option} fails on the outputs of a batch of {batch_type(inputs)}: "
                f"{type(error).__name__}: {error}; correct it"
            ) from error
        scalar = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
        if option == "loss" and not scalar:
            got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"the loss must be a float tensor without dimensions, got {got}; return a mean")
        if option == "metric":
            size = torch.as_tensor(value).numel()
            if size not in (1, samples):
                raise ConfigError(
                    f"the metric must be one number, or one for each of {samples} samples, got {size}; return a mean"
                )


def _check_logits(outputs: Any, targets: Any, where: str) -> None:
    """Whether outputs are logits for labels."""
    remedy = "name a loss with --loss package.module:function, or return N x classes logits"
    if not isinstance(outputs, Tensor):
        raise ConfigError(f"{where} returns a {type(outputs).__name__}, and cross-entropy takes one tensor; {remedy}")
    wanted = (len(targets), *targets.shape[1:])
    if outputs.ndim < 2 or (outputs.shape[0], *outputs.shape[2:]) != wanted:
        raise ConfigError(
            f"{where} returns {tuple(outputs.shape)}, and the labels are {tuple(targets.shape)}; {remedy}"
        )
    highest = int(targets.max())
    if highest >= outputs.shape[1]:
        raise ConfigError(f"{where} has {outputs.shape[1]} classes, and the data has label {highest}; {remedy}")
