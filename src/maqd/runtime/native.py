"""The compiled engine: plans in Python (`maqd.plan`), kernels in C and C++ (csrc/), the same integers as NumPy's."""

import enum
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError, MissingDependencyError
from maqd.graph import Graph
from maqd.graph.rules import Rules
from maqd.numerics.packing import group
from maqd.plan import (
    AddStep,
    Buffer,
    ConcatStep,
    ConvStep,
    FixedPointStep,
    MoveStep,
    MultiplyStep,
    Plan,
    PoolStep,
    Quantization,
    QuantizeStep,
    SumStep,
    TransposeStep,
    channels_first,
    make_plan,
)
from maqd.runtime.engine import BaseEngine, Codes, check_threads
from maqd.runtime.inputs import Prepared, prepare

ISA_VARIABLE = "MAQD_ISA"
"""Environment variable that names the instruction set to use: one of `isas()`."""

EARLY_IMAGES = 16
"""Most images that go through layers with large tensors together."""

EARLY_BYTES = 2**20
"""Fewer images go together where their tensors would take more, so that they stay in the second-level cache."""

LATE_IMAGES = 64
"""Images that go through the last layers together: each time weights are fetched they serve all of those."""


class Kernel(enum.Enum):
    """How convolutions are computed."""

    AUTOMATIC = "automatic"
    """Whatever is faster for the layer and the density of its input."""
    SCALAR = "scalar"
    """Plain C."""
    DENSE = "dense"
    """Products of uint8 and int8 matrices, where codes fit; the time does not depend on the input."""
    WINOGRAD = "winograd"
    """The same by Winograd's minimal filtering, for kernels of three columns and stride 1, where codes and inputs are
    small enough."""
    EVENTS = "events"
    """Sums of weights over the bits that are set in the input, where there is such a kernel."""


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """What a step of the engine took.

    Args:
        nodes: Names of the graph's nodes that it computes.
        kernel: Which kernel was used.
        seconds: Median over the repetitions, for all images together.
        density: Share of its input's values that are not zero; None where that is no choice of a kernel.
        macs: Multiplications and additions of an image that a plain implementation needs.
    """

    nodes: tuple[str, ...]
    kernel: str
    seconds: float
    density: float | None
    macs: int


def native_module() -> Any | None:
    """The compiled module, or None where the package was installed without a compiler."""
    try:
        return importlib.import_module("maqd._native")
    except ImportError:
        return None


def isas() -> tuple[str, ...]:
    """Instruction sets of this build that this processor has, the best one first; () without the compiled module."""
    module = native_module()
    return () if module is None else tuple(module.isas())


class NativeEngine(BaseEngine):
    """A graph in the compiled engine. May be used by several threads at once.

    Args:
        graph: A valid graph.
        threads: How many threads a call uses; a second call at the same time uses one.
        isa: Instruction set, one of `isas()`; by default that of the environment variable MAQD_ISA, or the best one.
        kernel: How convolutions are computed.

    Raises:
        MissingDependencyError: The package was installed without a compiler.
        EngineError: There is no such instruction set, or the engine cannot run the graph.
    """

    name = "native"

    def __init__(
        self, graph: Graph, *, threads: int = 1, isa: str | None = None, kernel: Kernel = Kernel.AUTOMATIC
    ) -> None:
        module = native_module()
        if module is None:
            raise MissingDependencyError(
                "the native engine was not built; install a C++ compiler and Python's headers and then maqd again, "
                'or use engine="numpy"'
            )
        super().__init__(graph)
        self.threads = check_threads(threads)
        self.kernel = kernel
        self._module = module
        self._isa = choose_isa(isa)
        self._plan = make_plan(graph)
        self._model = self._build(self._plan)
        self._as_given = [
            node.border is None and node.dtype == buffer.element.dtype and node.zero == buffer.zero
            for node, buffer in zip(graph.inputs, self._plan.inputs, strict=True)
        ]
        self._sizes = [buffer.size for buffer in self._plan.outputs]
        self._shapes = [graph.types[node.name].shape for node in graph.outputs]

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return self._isa

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights and tables."""
        return self._model.constant_bytes

    @property
    def working_bytes(self) -> int:
        """Bytes of activations and scratch memory, after the first call."""
        return self._model.working_bytes

    def options(self) -> dict[str, Any]:
        return {"threads": self.threads, "isa": self._isa, "kernel": self.kernel}

    def compute(self, prepared: Prepared) -> tuple[Codes, ...]:
        results = self._results_of(prepared.count)
        self._model.run(*self._arrays(prepared), results)
        return tuple(map(channels_first, results, self._shapes))

    def tensors(self, prepared: Prepared) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """What the engine stores comes from the very steps of `run`. Tensors that it never stores, because what
        follows is computed at once with them, come from a second plan that keeps steps apart.
        """
        fused, apart = self._inspected
        found: list[dict[str, NDArray[np.int64]]] = []
        size = min(model.first_images for _, model in self._inspected)
        given, channels_last = self._arrays(prepared)
        for start in range(0, max(prepared.count, 1), size):
            block = [array[start : start + size] for array in given]
            tensors = self._inspect(*apart, block, channels_last)
            tensors.update(self._inspect(*fused, block, channels_last))
            found.append(tensors)
        for node in self.graph.nodes:
            if node.name in found[0]:
                yield node.name, np.concatenate([tensors[node.name] for tensors in found])

    def profile(self, *inputs: object, repetitions: int = 20) -> tuple[StepProfile, ...]:
        """Time, kernel and density of each step, on one thread.

        Args:
            inputs: As in `run`; at most the first `LATE_IMAGES` samples of them are used.
            repetitions: How many runs; times are medians.
        """
        prepared = prepare(self.graph, *inputs)
        given, channels_last = self._arrays(prepared)
        given = [array[:LATE_IMAGES] for array in given]
        results = self._results_of(len(given[0]))
        runs = [self._model.profile(given, channels_last, results) for _ in range(repetitions + 1)][1:]
        macs = {node.name: self.graph.macs(node.name) for node in self.graph.nodes}
        return tuple(
            StepProfile(
                nodes=step.links.nodes,
                kernel=runs[0][place][2],
                seconds=float(np.median([run[place][0] for run in runs])),
                density=runs[0][place][1] if runs[0][place][1] >= 0 else None,
                macs=sum(macs[name] for name in step.links.nodes),
            )
            for place, step in enumerate(self._plan.steps)
        )

    # ---- inputs and results -----------------------------------------------------------------------------------------

    def _arrays(self, prepared: Prepared) -> tuple[list[NDArray[np.generic]], list[bool]]:
        """What the compiled engine reads: the integers of each input as its buffer stores them, and their order."""
        arrays: list[NDArray[np.generic]] = []
        channels_last: list[bool] = []
        for one, buffer, as_given in zip(prepared.samples, self._plan.inputs, self._as_given, strict=True):
            arrays.append(one.given if as_given else (one.codes + buffer.zero).astype(buffer.element.dtype))
            channels_last.append(one.channels_last and as_given)
        return arrays, channels_last

    def _results_of(self, count: int) -> list[NDArray[np.int32]]:
        return [np.empty((count, size), np.int32) for size in self._sizes]

    # ---- building ---------------------------------------------------------------------------------------------------

    @cached_property
    def _inspected(self) -> tuple[tuple[Plan, Any], tuple[Plan, Any]]:
        """The fused plan and the plan without fusion, both with all tensors kept, and their models."""
        fused, apart = make_plan(self.graph, keep=True), make_plan(self.graph, fuse=False, keep=True)
        return (fused, self._build(fused)), (apart, self._build(apart))

    def _inspect(
        self, plan: Plan, model: Any, given: list[NDArray[np.generic]], channels_last: list[bool]
    ) -> dict[str, NDArray[np.int64]]:
        count = len(given[0])
        arrays = {name: np.empty((count, buffer.size), np.int32) for name, (buffer, _) in plan.tensors.items()}
        buffers = [self._buffer(plan, buffer) for buffer, _ in plan.tensors.values()]
        model.inspect(given, channels_last, self._results_of(count), buffers, list(arrays.values()))
        return {name: channels_first(array, plan.tensors[name][1]).astype(np.int64) for name, array in arrays.items()}

    def _buffer(self, plan: Plan, buffer: Buffer) -> Any:
        return self._module.Buffer(
            plan.offset(buffer),
            plan.stage_of[buffer.storage],
            buffer.rows,
            buffer.columns,
            buffer.channels,
            buffer.element.value,
            buffer.zero,
            buffer.highest,
        )

    def _build(self, plan: Plan) -> Any:
        stages: list[Any] = []
        images = self.threads
        for stage in plan.stages:
            early = min(EARLY_IMAGES, EARLY_BYTES // max(stage.arena.size, 1))
            images = max(images, early if stage.large else LATE_IMAGES)
            stages.append(self._module.Stage(stage.arena.size, images, stage.end))
        try:
            model = self._module.Model(
                isa=self._isa,
                kernel=self._module.Kernel[self.kernel.name],
                threads=self.threads,
                inputs=[self._buffer(plan, buffer) for buffer in plan.inputs],
                outputs=[self._buffer(plan, buffer) for buffer in plan.outputs],
                stages=stages,
            )
        except RuntimeError as error:  # threads that the system does not start
            raise EngineError(str(error)) from error
        for step in plan.steps:
            what = ", ".join(step.links.nodes) or "a step between nodes"
            inputs, outputs = (
                [self._buffer(plan, buffer) for buffer in side] for side in (step.links.inputs, step.links.outputs)
            )
            NATIVE.find(step, what)(model, step, inputs, outputs)
        return model


def _conv(model: Any, step: ConvStep, inputs: list[Any], outputs: list[Any]) -> None:
    weight, layout = step.weight, group(step.weight.states.count)
    q: Quantization | None = step.quantization
    written = iter(outputs)
    model.conv(
        x=inputs[0],
        weight=weight.data,
        count=weight.states.count,
        low=weight.states.low,
        spacing=weight.states.spacing,
        digits=layout.digits,
        group_bytes=layout.bytes,
        inputs=weight.shape[1],
        bias=step.bias,
        kernel=weight.shape[2:],
        stride=step.stride,
        padding=step.padding,
        dilation=step.dilation,
        groups=step.groups,
        shift=step.shift,
        addend=inputs[1] if len(inputs) > 1 else None,
        addend_shift=step.addend_shift,
        reach=step.reach,
        raw=None if step.raw is None else next(written),
        codes=None if step.codes is None else next(written),
        thresholds=None if q is None else q.thresholds,
        signs=None if q is None else q.signs,
        step=1 if q is None else q.spacing,
        base=0 if q is None else q.base,
    )


def _quantize(model: Any, step: QuantizeStep, inputs: list[Any], outputs: list[Any]) -> None:
    q, axis = step.quantization, step.axis
    model.quantize(
        inputs[0], outputs[0], q.thresholds, q.signs, q.spacing, q.base, axis.outer, axis.channels, axis.inner
    )


def _fixed_point(model: Any, step: FixedPointStep, inputs: list[Any], outputs: list[Any]) -> None:
    affine, axis = step.affine, step.axis
    model.fixed_point(
        inputs[0], outputs[0], affine.multiplier, affine.offset, affine.shift, step.last, step.spacing, step.low,
        axis.outer, axis.inner,
    )  # fmt: skip


def _pool(model: Any, step: PoolStep, inputs: list[Any], outputs: list[Any]) -> None:
    model.pool(inputs[0], outputs[0], step.maximum, step.kernel, step.stride, step.padding)


def _sum(model: Any, _step: SumStep, inputs: list[Any], outputs: list[Any]) -> None:
    model.sum(inputs[0], outputs[0])


def _sums(model: Any, step: AddStep, inputs: list[Any], outputs: list[Any]) -> None:
    model.add(inputs, step.shifts, outputs[0])


def _concat(model: Any, step: ConcatStep, inputs: list[Any], outputs: list[Any]) -> None:
    lengths = [axis.channels * axis.inner for axis in step.axes]
    model.concat(inputs, step.shifts, lengths, step.axes[0].outer, outputs[0])


def _transpose(model: Any, step: TransposeStep, inputs: list[Any], outputs: list[Any]) -> None:
    model.transpose(inputs[0], outputs[0], step.height, step.width)


def _move(model: Any, step: MoveStep, inputs: list[Any], outputs: list[Any]) -> None:
    model.move(inputs[0], outputs[0], list(step.tables), step.fill)


def _multiply(model: Any, _step: MultiplyStep, inputs: list[Any], outputs: list[Any]) -> None:
    model.multiply(*inputs, outputs[0])


NATIVE = Rules(
    "the native engine",
    EngineError,
    {
        ConvStep: _conv,
        QuantizeStep: _quantize,
        FixedPointStep: _fixed_point,
        PoolStep: _pool,
        SumStep: _sum,
        AddStep: _sums,
        ConcatStep: _concat,
        TransposeStep: _transpose,
        MoveStep: _move,
        MultiplyStep: _multiply,
    },
)
"""How each kind of step is added to a compiled model."""


def choose_isa(isa: str | None) -> str:
    """The instruction set to use: that asked for, that of MAQD_ISA, or the best.

    Raises:
        EngineError: This processor or build lacks it.
    """
    wanted, have = isa or os.environ.get(ISA_VARIABLE, ""), isas()
    if not wanted:
        return have[0]
    if wanted not in have:
        source = "the argument isa" if isa else f"the environment variable {ISA_VARIABLE}"
        raise EngineError(f"{source} must be one of {', '.join(have)} on this processor, got {wanted!r}")
    return wanted
