"""Random integer graphs that are hard for an engine: ragged channels, strides, groups, extreme thresholds."""

from dataclasses import dataclass, field, replace
from functools import cache
from math import prod

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from maqd.errors import GraphError
from maqd.graph import (
    Add,
    Border,
    Concat,
    Conv,
    FixedPoint,
    Flatten,
    Gather,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Multiply,
    Node,
    Output,
    Permute,
    Reshape,
    Storage,
    SumPool,
    TensorType,
    Thresholds,
    channel_interval,
)
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import Grid, States
from maqd.runtime import inputs

CHANNELS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200, 256, 257, 300)
"""Around the widths of vectors."""
WEIGHT_STATES = (2, 3, 3, 3, 4, 5, 6, 7, 8, 15, 16, 17, 128, 129, 255, 256)
ACT_STATES = (2, 2, 3, 4, 4, 5, 8, 9, 16, 17, 64, 256)


@dataclass
class Builder:
    """A graph that grows node by node; nodes that would not fit 32 bits are left out."""

    data: st.DataObject
    random: np.random.Generator
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)

    def int(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def of(self, *options):
        return self.data.draw(st.sampled_from(options))

    def add(self, node: Node) -> str | None:
        """Append a node; its name, or None if it does not fit."""
        try:
            graph = Graph(nodes=(*self.nodes, node, Output(name="end", inputs=(node.name,))))
            self.types = graph.types
        except GraphError:
            return None
        self.nodes.append(node)
        return node.name

    def name(self) -> str:
        return f"n{len(self.nodes)}"

    def weight(self, *shape: int) -> PackedCodes:
        states = States(count=self.of(*WEIGHT_STATES), signed=True)
        codes = self.random.choice(np.array(states.codes), shape)
        kind = self.of("any", "any", "any", "highest", "lowest", "sparse")
        if kind in ("highest", "lowest"):
            codes[:] = states.high if kind == "highest" else states.low
        elif kind == "sparse" and 0 in states.codes:
            codes[self.random.random(shape) < 0.9] = 0
        return PackedCodes.pack(codes, states)

    def bias(self, outputs: int) -> np.ndarray | None:
        return self.of(None, self.random.integers(-500, 500, outputs).astype(np.int32))

    def conv(self, source: str) -> str | None:
        channels, *space = self.types[source].shape
        groups = self.of(1, 1, 1, *(g for g in (2, 3, channels) if channels % g == 0))
        share = self.of(1, 2, 3, 8) if groups > 1 else self.of(*CHANNELS)
        kernel, stride, padding, trailing, dilation = [], [], [], [], []
        for size in space:
            kernel.append(self.int(1, min(size, self.of(1, 3, 3, 5))))
            dilation.append(self.of(1, 1, 2) if 2 * (kernel[-1] - 1) < size else 1)
            stride.append(self.of(1, 1, 2, 3))
            padding.append(self.int(0, 2))
            trailing.append(self.of(padding[-1], padding[-1], 0, 1))
        return self.add(
            Conv(
                name=self.name(),
                inputs=(source,),
                weight=self.weight(share * groups, channels // groups, *kernel),
                exponent=-2,
                bias=self.bias(share * groups),
                stride=tuple(stride),
                padding=tuple(padding),
                trailing=tuple(trailing),
                dilation=tuple(dilation),
                groups=groups,
            )
        )

    def linear(self, source: str) -> str | None:
        outputs = self.of(*CHANNELS)
        return self.add(
            Linear(
                name=self.name(),
                inputs=(source,),
                weight=self.weight(outputs, self.types[source].shape[-1]),
                exponent=-2,
                bias=self.bias(outputs),
            )
        )

    def activation(self, source: str, axis: int = 0) -> str | None:
        kind = self.types[source]
        channels = kind.shape[axis]
        states = States(count=self.of(*ACT_STATES), signed=self.of(False, False, False, True))
        interval = channel_interval(kind, axis)
        common = {"name": self.name(), "inputs": (source,), "axis": axis, "states": states, "step_exponent": -1}
        if self.of(True, False, False):
            if self.of(False, False, False, True):  # 16-bit codes
                common["states"] = States(count=self.of(257, 1000, 32767, 65536), signed=states.signed)
            return self.add(
                FixedPoint(
                    **common,
                    multiplier=self.random.integers(-9, 10, channels),
                    offset=self.random.integers(-2000, 2000, channels),
                    shift=self.int(0, 8),
                )
            )
        # Around zero, where most sums are; anywhere; or where they are always or never reached.
        spread = self.of("near", "near", "anywhere", "always", "never")
        low, high = (interval.low, interval.high)
        reach = np.minimum(np.maximum(-low, high), 40 if spread == "near" else 2**31) + 1
        cuts = self.random.integers(-reach, reach + 1, (states.count - 1, channels))
        if spread == "always":
            cuts[:] = -np.maximum(-low, high)
        elif spread == "never":
            cuts[:] = np.maximum(-low, high) + 1
        signs = self.of(np.ones(channels, np.int8), self.random.choice(np.array([1, -1], np.int8), channels))
        return self.add(Thresholds(**common, thresholds=np.sort(cuts, axis=0), signs=signs))

    def pool(self, source: str) -> str | None:
        space = self.types[source].shape[1:]
        kernel = tuple(self.int(1, min(size, 3)) for size in space)
        window = {
            "kernel": kernel,
            "stride": tuple(self.int(1, 2) for _ in space),
            "padding": tuple(self.int(0, size // 2) for size in kernel),
            "trailing": tuple(self.int(0, size // 2) for size in kernel),
            "dilation": tuple(
                self.of(1, 1, 1, 2) if 2 * k < size else 1 for k, size in zip(kernel, space, strict=True)
            ),
        }
        if self.of(True, False):
            return self.add(MaxPool(name=self.name(), inputs=(source,), **window))
        return self.add(SumPool(name=self.name(), inputs=(source,), **window, shift=1))

    def move(self, source: str) -> str | None:
        """One to three nodes that only move elements."""
        end = source
        for _ in range(self.int(1, 3)):
            shape = self.types[end].shape
            kind = self.of("gather", "gather", "permute", "reshape")
            if kind == "permute":
                order = tuple(self.data.draw(st.permutations(range(len(shape)))))
                end = self.add(Permute(name=self.name(), inputs=(end,), order=order)) or end
            elif kind == "reshape":
                axis = self.int(0, len(shape) - 1)
                factor = self.of(*(n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0))
                split = (*shape[:axis], factor, shape[axis] // factor, *shape[axis + 1 :])
                at = self.int(0, len(split) - 2)
                merged = (*split[:at], split[at] * split[at + 1], *split[at + 2 :])
                end = self.add(Reshape(name=self.name(), inputs=(end,), shape=merged)) or end
            else:
                end = self.gather(end) or end
        return end

    def gather(self, source: str) -> str | None:
        kind = self.types[source]
        axis = self.int(0, len(kind.shape) - 1)
        size = kind.shape[axis]
        whole = np.arange(size)
        how = self.of("pad", "slice", "repeat", "shuffle", "zeros", "any")
        indices = {
            "pad": np.pad(whole, (self.int(0, 2), self.int(0, 2)), constant_values=-1),
            "slice": whole[self.int(0, size - 1) :: self.of(1, 1, 2)],
            "repeat": np.repeat(whole, 2),
            "shuffle": self.random.permutation(size),
            "zeros": np.where(np.arange(2 * size - 1) % 2, -1, np.arange(2 * size - 1) // 2),
            "any": self.random.integers(-1, size, self.int(1, 9)),
        }[how]
        fill = self.of(0, 0, 0, kind.interval.lowest, kind.interval.highest + 1)
        return self.add(Gather(name=self.name(), inputs=(source,), axis=axis, indices=indices, fill=fill))

    def product(self, source: str) -> str | None:
        """A tensor times itself, or times one code a channel, a row or all."""
        shape = self.types[source].shape
        other = source
        for axis in range(1, len(shape)):
            if self.of(True, False):
                first = Gather(name=self.name(), inputs=(other,), axis=axis, indices=np.zeros(1, np.int64))
                other = self.add(first) or other
        pair = (source, other) if self.of(True, False) else (other, source)
        return self.add(Multiply(name=self.name(), inputs=pair))

    def same(self, source: str) -> str | None:
        """A convolution that keeps the shape."""
        channels, *space = self.types[source].shape
        return self.add(
            Conv(
                name=self.name(),
                inputs=(source,),
                weight=self.weight(channels, channels, *([3] * len(space))),
                exponent=-2,
                stride=(1,) * len(space),
                padding=(1,) * len(space),
                dilation=(1,) * len(space),
            )
        )

    def merge(self, source: str) -> str | None:
        """Two branches, added or side by side; shifts bring them to one unit."""
        branches = [source, self.same(source)]
        if self.of(True, False):
            branches.append(self.same(source))
        names = [name for name in branches if name is not None]
        if len(names) < 2:
            return None
        if self.of(True, False):
            names.reverse()
        exponents = [self.types[name].exponent for name in names]
        shifts = tuple(exponent - min(exponents) for exponent in exponents)
        if self.of(True, True, False):
            return self.add(Add(name=self.name(), inputs=tuple(names), shifts=shifts))
        axis = self.int(0, len(self.types[source].shape) - 1)
        return self.add(Concat(name=self.name(), inputs=tuple(names), shifts=shifts, axis=axis))

    def head(self, source: str) -> str:
        """From a map to a vector, or not."""
        end = source
        ending = self.of("flatten", "global", "rows", "map")
        if ending == "flatten":
            end = self.add(Flatten(name=self.name(), inputs=(source,))) or source
        elif ending == "global" and len(self.types[source].shape) > 1:
            end = self.add(GlobalSum(name=self.name(), inputs=(source,), shift=2)) or source
        if ending != "map":
            end = self.linear(end) or end
        if self.of(True, False):
            end = self.activation(end, self.int(0, len(self.types[end].shape) - 1)) or end
        return end

    def input(self, shape: tuple[int, ...]) -> str:
        """An input: pixels more often than other integers and floats."""
        storage = self.of(*[Storage.U8] * 4, *Storage)
        name = self.name()
        node = Input(name=name, key=f"{name}.x", inputs=(), shape=shape)
        if storage is not Storage.U8 or self.of(True, False, False):
            low, high = self.of((-128, 127), (0, 1), (0, 15), (-9, 100), (0, 255), (-3000, 3000), (0, 40000))
            grid = Grid(low=low, high=high, exponent=self.of(-6, -3))
            limits = None if storage is Storage.F32 else np.iinfo(storage.value)
            if limits is not None and high - low > limits.max - limits.min:
                return self.input(shape)
            zero = 0 if limits is None else self.int(limits.min - low, limits.max - high)
            border = self.border(shape) if limits is None else None
            node = replace(node, grid=grid, storage=storage, zero=zero, border=border)
        self.nodes.append(node)
        self.types = Graph(nodes=(*self.nodes, Output(name="end", inputs=(name,)))).types
        return name

    def border(self, shape: tuple[int, ...]) -> Border:
        """Of one channel or several, scaled by a few thousandths or thousands."""
        axis = self.int(0, len(shape) - 1)
        count, top = self.of(1, shape[axis]), self.of(9, 2**29 - 1)
        signs = self.random.choice(np.array([-1, 1]), count)
        return Border(
            multiplier=signs * self.random.integers(1, top + 1, count),
            offset=self.random.integers(-99, 100, count),
            shift=self.of(0, 10, 31, 62),
            axis=axis,
        )

    def join(self, first: str, second: str) -> str | None:
        """Two tensors of one shape, added or side by side."""
        exponents = [self.types[name].exponent for name in (first, second)]
        shifts = tuple(exponent - min(exponents) for exponent in exponents)
        if self.of(True, False):
            return self.add(Add(name=self.name(), inputs=(first, second), shifts=shifts))
        return self.add(Concat(name=self.name(), inputs=(first, second), shifts=shifts, axis=0))

    def prune(self, end: str, more: tuple[str, ...] = ()) -> Graph:
        """The graph of what the end and more outputs need."""
        needed = {end, *more}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        kept = tuple(node for node in self.nodes if node.name in needed)
        outputs = [Output(name="logits", inputs=(end,))]
        for place, name in enumerate(more):
            outputs.append(Output(name=f"more{place}", key=f"a.{place}", inputs=(name,), divisor=self.of(1, 9)))
        graph = Graph(nodes=(*kept, *outputs))
        graph.validate()
        return graph


def random_graph(data: st.DataObject) -> Graph:
    """A valid graph of a few nodes of every kind."""
    builder = Builder(data, np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))))
    dims = builder.of(2, 2, 2, 1, 1, 3)
    space = tuple(builder.int(1, {1: 12, 2: 7, 3: 4}[dims]) for _ in range(dims))
    shape = (builder.of(1, 3, 4, 17), *space)
    end = builder.input(shape)
    if builder.of(True, False, False):
        end = builder.join(end, builder.input(shape)) or end
    for _ in range(builder.int(1, 4)):
        steps = (builder.conv, builder.conv, builder.conv, builder.merge, builder.merge, builder.pool, builder.pool)
        for make in (builder.of(*steps, builder.move, builder.product), builder.activation):
            if make is not builder.activation or builder.of(True, True, True, False):
                end = make(end) or end
        if prod(builder.types[end].shape) > 20000:
            break
    end = builder.head(end)
    others = [node.name for node in builder.nodes if node.name != end]
    return builder.prune(end, tuple(builder.of(*others) for _ in range(builder.of(0, 0, 0, 1, 2)) if others))


def hard_samples(graph: Graph) -> tuple[np.ndarray, ...]:
    """Random codes, the lowest, the highest, and codes 0; halves between codes and infinities for floats."""
    found = inputs.random(graph, 5)
    for node, samples in zip(graph.inputs, found, strict=True):
        if node.border is None:
            samples[4] = node.zero
    return found


@cache
def random_graphs(count: int) -> tuple[Graph, ...]:
    """The same graphs every time, made once a process."""
    found: list[Graph] = []

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def collect(data: st.DataObject) -> None:
        found.append(random_graph(data))

    collect()
    return tuple(found[:count])
