"""Random spiking networks in small, and what those of one step compute."""

import numpy as np
from graphs import weight
from numpy.typing import NDArray

from maqd.export.nir import NirModel
from maqd.graph import (
    Add,
    Concat,
    Conv,
    FixedPoint,
    Flatten,
    Geometry,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Node,
    Output,
    SumPool,
    channel_interval,
)
from maqd.numerics.states import States


class _Builder:
    """A network as it grows."""

    def __init__(self, seed: int, states: int) -> None:
        self.random = np.random.default_rng(seed)
        self.states = states
        size = int(self.random.integers(4, 9))
        self.nodes: list[Node] = [Input(name="x", inputs=(), shape=(int(self.random.integers(1, 4)), size, size))]

    @property
    def last(self) -> str:
        return self.nodes[-1].name

    def shape(self, name: str) -> tuple[int, ...]:
        return Graph(nodes=tuple(self.nodes)).types[name].shape

    def add(self, node: Node) -> str:
        self.nodes.append(node)
        return node.name

    def name(self, what: str) -> str:
        return f"{what}{len(self.nodes)}"

    def conv(
        self, source: str, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, unit: int = 0
    ) -> str:
        shape = (outputs, self.shape(source)[0] // groups, kernel, kernel)
        return self.add(
            Conv(
                name=self.name("conv"),
                inputs=(source,),
                weight=weight(self.random, int(self.random.integers(2, 8)), *shape),
                exponent=unit,
                bias=self.random.integers(-9, 10, outputs) if self.random.integers(2) else None,
                stride=(stride, stride),
                padding=(kernel // 2, kernel // 2),
                dilation=(1, 1),
                groups=groups,
            )
        )

    def act(self, source: str) -> str:
        """A fixed-point map that uses all states; some gains are negative."""
        kind = Graph(nodes=tuple(self.nodes)).types[source]
        interval = channel_interval(kind, 0)
        reach = np.maximum(1, np.maximum(-interval.low, interval.high))
        channels = len(reach)
        gain = self.random.choice([-1, 1], channels) * (self.random.integers(8, 33, channels) * 2**16 // reach)
        return self.add(
            FixedPoint(
                name=self.name("act"),
                inputs=(source,),
                axis=0,
                states=States(count=self.states, signed=False),
                step_exponent=0,
                multiplier=gain,
                offset=self.random.integers(-(2**17), 2**18, channels),
                shift=17,
            )
        )

    def block(self) -> None:
        """One of the shapes that networks have, from codes to codes."""
        source, channels = self.last, self.shape(self.last)[0]
        kind = self.random.integers(6)
        if kind == 0:  # the stream of a residual network, read twice
            stream = self.conv(source, channels)
            branch = self.conv(self.act(stream), channels, unit=-1)
            self.act(self.add(Add(name=self.name("add"), inputs=(stream, branch), shifts=(1, 0))))
        elif kind == 1:  # a shortcut of the codes themselves
            branch = self.conv(source, channels, unit=-2)
            self.act(self.add(Add(name=self.name("add"), inputs=(source, branch), shifts=(2, 0))))
        elif kind == 2 and min(self.shape(source)[1:]) >= 2:
            window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
            self.add(MaxPool(name=self.name("pool"), inputs=(source,), **window))
        elif kind == 3:
            other = self.act(self.conv(source, 3))
            joined = self.add(Concat(name=self.name("join"), inputs=(source, other), shifts=(0, 0), axis=0))
            self.act(self.conv(joined, 4, kernel=1))
        elif kind == 4:
            self.act(self.conv(source, channels, groups=channels))
        else:
            self.act(self.conv(source, int(self.random.integers(2, 7)), stride=int(self.random.integers(1, 3))))

    def head(self) -> Graph:
        """Sums over all positions or windows, or all elements, and a linear map."""
        source, kind = self.last, self.random.integers(3)
        if kind == 0:
            flat = self.add(GlobalSum(name="sum", inputs=(source,), shift=1))
        elif kind == 1 and min(self.shape(source)[1:]) >= 2:
            window = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0)}
            pooled = self.add(SumPool(name="average", inputs=(source,), shift=2, **window))
            flat = self.add(Flatten(name="flat", inputs=(pooled,)))
        else:
            flat = self.add(Flatten(name="flat", inputs=(source,)))
        matrix = weight(self.random, 5, 3, self.shape(flat)[0])
        bias = self.random.integers(-50, 50, 3)
        self.add(Linear(name="head", inputs=(flat,), weight=matrix, exponent=0, bias=bias))
        self.add(Output(name="logits", inputs=("head",)))
        return Graph(nodes=tuple(self.nodes))


def spiking_network(seed: int, states: int) -> Graph:
    """A random network of convolutions, shortcuts, pools and activations of equal steps, with one input and output."""
    builder = _Builder(seed, states)
    builder.act(builder.conv("x", int(builder.random.integers(2, 6))))
    for _ in range(int(builder.random.integers(1, 4))):
        builder.block()
    return builder.head()


def simulate(model: NirModel, codes: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """What each node of the network sends in one step from potential 0, in exact arithmetic."""
    network = model.network
    sent = {"input": model.samples(codes).astype(np.float64)}
    waiting = {**network.synapses, **network.neurons}
    while waiting:
        for name in list(waiting):
            if name in network.synapses:
                synapses = network.synapses[name]
                if synapses.source not in sent:
                    continue
                dense = synapses.dense
                kernel = dense.weight.shape[2:]
                geometry = Geometry(
                    kernel=kernel,
                    stride=dense.stride,
                    padding=dense.padding,
                    trailing=dense.padding,
                    dilation=dense.dilation,
                )
                views = geometry.views(sent[synapses.source], 0)  # pyright: ignore[reportArgumentType]
                total = sum(np.einsum("oi,nihw->nohw", dense.weight[:, :, *place], view) for place, view in views)
                bias = dense.bias + (network.threshold + 0.5 if synapses.charged else 0)
                sent[name] = total + bias.reshape(-1, 1, 1)
                assert kernel[0] == kernel[1]
            else:
                neurons = network.neurons[name]
                if not set(neurons.sources) <= sent.keys():
                    continue
                potential = sum(sent[source] for source in neurons.sources)
                assert (potential != network.threshold).all()  # > and >= agree
                assert (potential < 2 * network.threshold).all()  # at most one spike
                assert np.abs(potential).max() < 2**23
                sent[name] = (potential > network.threshold).astype(np.float64)
            del waiting[name]
    return sent
