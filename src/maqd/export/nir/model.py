"""The spiking network of a graph as nodes of NIR, and as a file."""

import enum
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.export.nir.network import INPUT, OUTPUT, Network, Reading, build
from maqd.graph import Graph
from maqd.io.files import write_atomically
from maqd.io.outputs import NAME
from maqd.optional import require


class Importer(enum.Enum):
    """Which simulator or chip tool is to read a file, and so what its neurons are."""

    SPEC = "spec"
    """snnTorch and SpikingJelly as they are, norse with dt=2e-4. A neuron keeps half its potential: reset between
    samples."""
    SNNTORCH = "snntorch"
    """Neurons that leak completely in a step of 1e-4 s, so that samples may follow each other without a reset."""
    SPIKINGJELLY = "spikingjelly"
    """As `SPEC`: a neuron of SpikingJelly cannot leak completely."""
    NORSE = "norse"
    """Neurons that leak completely in a step of 1e-3 s, norse's own."""
    SINABS = "sinabs"
    """Neurons without a leak, since sinabs reads leaky ones of a single row and column only: reset between samples."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A leaky integrate-and-fire neuron of NIR: tau dv/dt = r I - v.

    Args:
        tau: Seconds.
        r: Resistance; tau over the importer's step, so that a potential of 0 becomes I.
        step: The step with which the importer has to compute, in seconds.
    """

    tau: float
    r: float
    step: float


LEAKS: dict[Importer, Leak | None] = {
    Importer.SPEC: Leak(tau=2e-4, r=2.0, step=1e-4),
    Importer.SNNTORCH: Leak(tau=1e-4, r=1.0, step=1e-4),
    Importer.SPIKINGJELLY: Leak(tau=2e-4, r=2.0, step=1e-4),
    Importer.NORSE: Leak(tau=1e-3, r=1.0, step=1e-3),
    Importer.SINABS: None,
}
"""The neurons for each importer; None for neurons without a leak."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NirModel:
    """A graph of two states as a spiking network of one step.

    Args:
        graph: The graph.
        network: Its convolutions and neurons.
        importer: Who is to read it.
    """

    graph: Graph
    network: Network
    importer: Importer

    @property
    def threshold(self) -> int:
        """Of all neurons."""
        return self.network.threshold

    @property
    def neurons(self) -> int:
        """How many there are."""
        return sum(int(np.prod(one.layout)) for one in self.network.neurons.values())

    @property
    def merges(self) -> tuple[str, ...]:
        """Neurons whose currents come over several edges."""
        return tuple(name for name, one in self.network.neurons.items() if len(one.sources) > 1)

    def samples(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """What goes into the network: codes, N x the input's shape, as N x channels x rows x columns."""
        return codes.reshape(len(codes), *self.network.input_layout).astype(np.float32)

    def codes(self, name: str, found: dict[str, NDArray[np.floating]]) -> NDArray[np.int64]:
        """A tensor of the graph from the outputs of the network's nodes.

        Args:
            name: Of a node of the graph, one of `network.readings`.
            found: What each node of the spiking network sent, N x its layout.

        Returns:
            int64, N x the tensor's shape; halves and the like, which only a wrong simulation has, are rounded away
            from 0.
        """
        reading: Reading = self.network.readings[name]
        total = sum((found[node].astype(np.float64) for node in reading.nodes), np.zeros(()))
        zero = reading.offset + (self.threshold if reading.charged else 0)
        column = (-1, 1, 1)
        exact = reading.sign.reshape(column) * (total - zero.reshape(column))
        codes = (np.sign(exact) * np.ceil(np.abs(exact))).astype(np.int64)
        return codes.reshape(len(codes), *self.graph.types[name].shape)


def nir_model(graph: Graph, importer: Importer = Importer.SPEC) -> NirModel:
    """A graph as a spiking network of one step, without any package.

    Args:
        graph: A valid graph; its activations have codes 0 and 1.
        importer: Who is to read it.

    Raises:
        ExportError: The graph has something that cannot be expressed; the message names the node.
    """
    return NirModel(graph=graph, network=build(graph), importer=importer)


def nir_graph(model: NirModel) -> Any:
    """The network as a `nir.NIRGraph`.

    Raises:
        MissingDependencyError: nir is not installed.
    """
    nir, network = require("nir", "an export to NIR"), model.network
    nodes: dict[str, Any] = {INPUT: nir.Input(input_type=np.array(network.input_layout))}
    edges: list[tuple[str, str]] = []
    for name, one in network.synapses.items():
        charge = network.threshold + 0.5 if one.charged else 0.0
        nodes[name] = nir.Conv2d(
            input_shape=one.layout[1:],
            weight=one.dense.weight.astype(np.float32),
            stride=one.dense.stride,
            padding=one.dense.padding,
            dilation=one.dense.dilation,
            groups=1,
            bias=(one.dense.bias + charge).astype(np.float32),
        )
        edges.append((one.source, name))
    for name, one in network.neurons.items():
        nodes[name] = _neurons(nir, model, one.layout)
        edges += [(source, name) for source in one.sources]
    nodes[OUTPUT] = nir.Output(output_type=np.array(network.output_layout))
    edges += [(source, OUTPUT) for source in network.outputs]
    return nir.NIRGraph(nodes=nodes, edges=edges)


def _neurons(nir: Any, model: NirModel, shape: tuple[int, ...]) -> Any:
    zeros, ones = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    threshold = ones * np.float32(model.threshold)
    leak = LEAKS[model.importer]
    if leak is None:
        return nir.IF(r=ones, v_threshold=threshold, v_reset=zeros)
    return nir.LIF(
        tau=ones * np.float32(leak.tau), r=ones * np.float32(leak.r), v_leak=zeros, v_threshold=threshold, v_reset=zeros
    )


def save_nir(model: NirModel, path: Path | str) -> None:
    """Write a NIR file; all of it or nothing.

    Raises:
        MissingDependencyError: nir is not installed.
        OSError: The file cannot be written; one that was there is untouched.
    """
    nir = require("nir", "an export to NIR")
    buffer = io.BytesIO()
    nir.write(buffer, nir_graph(model))
    with require("h5py", "an export to NIR").File(buffer, "r+") as file:
        file.attrs["generator"] = NAME
        if model.importer is Importer.SINABS:
            # What neurons are reset to is 0, and sinabs reads files with nir 1.0.4, which knows no reset.
            for node in file["node/nodes"].values():
                node.pop("v_reset", None)
    write_atomically(Path(path), [buffer.getvalue()])
