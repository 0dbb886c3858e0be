"""From a network to its integer graph.

Whatever would not give the same integers is refused: with the layer's name, the line, the reason and a remedy. Every
activation is proved (`maqd.graph.proof`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maqd.errors import DataError, LoweringError
from maqd.graph import Graph
from maqd.graph.proof import ActivationReport
from maqd.lowering.builder import Builder
from maqd.lowering.grids import find_grids
from maqd.lowering.refusals import Refusal, RefusedError
from maqd.lowering.rules import RULES
from maqd.models.language import LanguageNetwork
from maqd.nn.tracing import TracingError, plain, trace
from maqd.numerics.fixedpoint import AffineForm


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A lowered network.

    Args:
        graph: The integer graph.
        activations: The proof of each of its activations.
    """

    graph: Graph
    activations: tuple[ActivationReport, ...]


Progress = Callable[[str, int, int], None]
"""Called with an activation's name, its number and their count before it is proved."""


def check(
    model: nn.Module, example: Tensor | tuple[Tensor, ...], *, affine: AffineForm = AffineForm.AUTO
) -> tuple[Refusal, ...]:
    """What stands between a network and its integer graph: to be called before training.

    Layers that were built without `input_grid` get it here. The network is left as it is otherwise, its modes
    included; no values are computed but those of the layers' weights.

    Args:
        model: Layers of `maqd.nn` and what docs/lowering.md lists.
        example: A batch for the parameter of `forward`, or a tuple of one for each: shapes and dtypes matter.
        affine: Form of the activations; thresholds are found fastest.

    Returns:
        All refusals, in the order of the calls; empty if the network can be lowered.

    Raises:
        DataError: `example` is no batch.
    """
    _, refusals = _build(model, example, affine, ())
    return refusals


def lower(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    *,
    affine: AffineForm = AffineForm.AUTO,
    labels: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Lowered:
    """The integer graph of a network's evaluation, every activation proved.

    Args:
        model: Layers of `maqd.nn`, and what docs/lowering.md lists.
        example: As in `check`.
        affine: Form of the activations.
        labels: Names of the classes.
        progress: Told how far the proof is.

    Raises:
        LoweringError: Calls have no exact integer form; the message names all of them, with reason and remedy.
        DataError: `example` is no batch.
    """
    builder, refusals = _build(model, example, affine, labels)
    if builder is None or builder.graph is None:
        raise RefusedError(refusals)
    reports = []
    for place, step in enumerate(builder.candidates):
        if progress is not None:
            progress(step.node.name, place, len(builder.candidates))
        report = step.prove()
        if report.mismatches:
            raise LoweringError(
                f"{report.name}: its integer form differs from the network in {report.mismatches} of {report.checked} "
                "values; this is a bug of maqd, please report it with the network"
            )
        reports.append(report)
    return Lowered(graph=builder.graph, activations=tuple(reports))


def _build(
    model: nn.Module, example: Tensor | tuple[Tensor, ...], affine: AffineForm, labels: tuple[str, ...]
) -> tuple[Builder | None, tuple[Refusal, ...]]:
    examples = example if isinstance(example, tuple) else (example,)
    for one in examples:
        if not isinstance(one, Tensor) or one.ndim < 2:
            what = f"{one.dtype} {tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
            raise DataError(
                f"lowering needs a batch to know the shape of an input, got {what}; pass a tensor such as "
                "torch.zeros(1, 3, 32, 32, dtype=torch.uint8)"
            )
    if isinstance(plain(model), LanguageNetwork):
        refusal = Refusal(
            module="",
            line=None,
            reason="a language model has norms and attention in float32, and so no integer graph",
            remedy="maqd lower RUN or maqd.lowering.language.lower_language write it as a language model",
        )
        return None, (refusal,)
    try:
        traced = trace(plain(model), examples)
    except TracingError as error:
        refusal = Refusal(module=error.module, line=error.line, reason=error.reason, remedy=error.remedy)
        return None, (refusal,)
    builder = Builder(traced, RULES, affine)
    with torch.no_grad():
        find_grids(model, traced)
        builder.build(labels)
    return builder, tuple(builder.refusals)
