"""Spiking simulators that import NIR, as engines: the graph's integers from the spikes of their neurons."""

import contextlib
import importlib.metadata
import importlib.util
import io
import os
import re
import subprocess
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError, MissingDependencyError
from maqd.export.nir import Importer, NirModel, nir_model, save_nir
from maqd.export.nir.model import LEAKS
from maqd.graph import Activation, Graph
from maqd.optional import missing, require
from maqd.runtime.engine import BaseEngine, Codes
from maqd.runtime.inputs import Prepared
from maqd.runtime.sinabs_worker import in_order

Found = dict[str, NDArray[np.floating]]
"""What each node of the spiking network sent, N x its layout."""

WORKER = Path(__file__).with_name("sinabs_worker.py")


LEAST = {"nir": (1, 0, 8), "nirtorch": (2, 6), "snntorch": (1, 0), "spikingjelly": (2, 0), "norse": (1, 1)}
"""The oldest version of each package with which the integers were compared."""


class Simulator(ABC):
    """An imported NIR graph in a simulator on PyTorch.

    Args:
        model: The network, for this simulator or for all of them.

    Raises:
        MissingDependencyError: The simulator, nir or nirtorch is not installed, or older than `LEAST`.
    """

    name: str

    def __init__(self, model: NirModel) -> None:
        self.model = model

    @abstractmethod
    def run(self, samples: NDArray[np.float32], *, fresh: bool = True) -> Found:
        """One step of the network.

        Args:
            samples: From `NirModel.samples`.
            fresh: Whether neurons start at potential 0, rather than where the last step left them.
        """


def check_version(package: str, what: str) -> None:
    """Whether a package is there and new enough.

    Raises:
        MissingDependencyError: It is not; `what` names the feature that needs it.
    """
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise missing(package, what) from error
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if numbers < LEAST[package]:
        wanted = ".".join(map(str, LEAST[package]))
        raise MissingDependencyError(f"{what} needs {package} {wanted} or newer, got {version}; make setup-spiking")


def installed(importer: Importer) -> bool:
    """Whether the simulator of an importer can be used here."""
    if importer is Importer.SINABS:
        return sinabs_python() is not None
    return importlib.util.find_spec(importer.value) is not None


def read_back(model: NirModel) -> Any:
    """The `nir.NIRGraph` of a network as it comes out of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.nir"
        save_nir(model, path)
        return require("nir", "this engine").read(path)


class _Torch(Simulator):
    """A module of PyTorch that simulates the network."""

    def __init__(self, model: NirModel) -> None:
        super().__init__(model)
        for package in ("nir", "nirtorch", self.name):
            check_version(package, f"the engine {self.name}")
        self.state: Any = None
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            self.module = self.load(read_back(model)).eval()
        wanted = {*model.network.synapses, *model.network.neurons}
        self.found: Found = {}
        for name, module in self.module.named_modules():
            if name in wanted:
                module.register_forward_hook(self._keep(name))

    @abstractmethod
    def load(self, graph: Any) -> Any:
        """The simulator's module for a `nir.NIRGraph` that was read from a file."""

    def _keep(self, name: str) -> Any:
        def keep(_module: Any, _given: Any, sent: Any) -> None:
            self.found[name] = (sent[0] if isinstance(sent, tuple) else sent).numpy()

        return keep

    def forget(self) -> None:
        """Bring all neurons to potential 0."""
        self.state = None

    def run(self, samples: NDArray[np.float32], *, fresh: bool = True) -> Found:
        torch = require("torch", self.name)
        if fresh:
            self.forget()
        self.found = {}
        with torch.no_grad():
            _, self.state = self.module(torch.from_numpy(samples), self.state)
        return self.found


class SnnTorch(_Torch):
    """snnTorch."""

    name = "snntorch"

    def load(self, graph: Any) -> Any:
        return require("snntorch.import_nir", "this engine").import_from_nir(graph)

    def forget(self) -> None:
        super().forget()
        for module in self.module.modules():
            if hasattr(module, "reset_mem"):
                module.reset_mem()


class SpikingJelly(_Torch):
    """SpikingJelly."""

    name = "spikingjelly"

    def load(self, graph: Any) -> Any:
        exchange = require("spikingjelly.activation_based.nir_exchange", "this engine")
        return exchange.import_from_nir(graph)


class Norse(_Torch):
    """norse."""

    name = "norse"

    def load(self, graph: Any) -> Any:
        leak = LEAKS[self.model.importer]
        if leak is None:
            raise EngineError("norse takes leaky neurons; export for spec or norse")
        # norse knows no resistance: its step has to be the time constant.
        module = require("norse.torch", "this engine").from_nir(graph, ignore_warnings=True, dt=leak.tau)
        module.execution_order = in_order(module.execution_order, graph.edges)
        return module


class Sinabs(Simulator):
    """sinabs, in an environment of its own: it needs another version of nir."""

    name = "sinabs"

    def __init__(self, model: NirModel) -> None:
        super().__init__(model)
        self.python = sinabs_python()
        if self.python is None:
            raise MissingDependencyError(
                "sinabs needs an environment of its own, which is missing; run make setup-sinabs, or set MAQD_SINABS "
                "to a Python that can import it"
            )

    def run(self, samples: NDArray[np.float32], *, fresh: bool = True) -> Found:
        if not fresh:
            raise EngineError("sinabs starts in a process of its own for each call; its neurons start at 0")
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            save_nir(self.model, place / "model.nir")
            np.save(place / "samples.npy", samples)
            command = [str(self.python), "-P", "-W", "ignore", str(WORKER), folder]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                last = result.stderr.strip().splitlines()[-1:]
                raise EngineError(f"sinabs failed: {''.join(last)}; run {' '.join(command)} to see all of it")
            with np.load(place / "found.npz") as found:
                return dict(found)


def sinabs_python() -> Path | None:
    """A Python that has sinabs: MAQD_SINABS, or the one that `make setup-sinabs` made."""
    named = os.environ.get("MAQD_SINABS")
    path = Path(named) if named else Path(__file__).parents[3] / ".venv-sinabs" / "bin" / "python"
    return path if path.exists() else None


SIMULATORS: Mapping[Importer, type[Simulator]] = {
    Importer.SNNTORCH: SnnTorch,
    Importer.SPIKINGJELLY: SpikingJelly,
    Importer.NORSE: Norse,
    Importer.SINABS: Sinabs,
}
"""The simulator of each importer."""

SPEC_READERS = (Importer.SNNTORCH, Importer.SPIKINGJELLY, Importer.NORSE)
"""Who reads a file for `Importer.SPEC`."""


class NirEngine(BaseEngine):
    """A graph of two states as NIR in a simulator.

    Args:
        graph: A valid graph whose activations have codes 0 and 1.
        importer: Which simulator.
        spec: Whether to read the file for all simulators, rather than this one's own.

    Raises:
        ExportError: The graph cannot be expressed.
        MissingDependencyError: nir or the simulator is not installed.
    """

    importer: Importer

    def __init__(self, graph: Graph, importer: Importer, *, spec: bool = False) -> None:
        super().__init__(graph)
        self.importer, self.spec = importer, spec
        self.model = nir_model(graph, Importer.SPEC if spec else importer)
        self.simulator = SIMULATORS[importer](self.model)
        self.name = self.simulator.name

    def options(self) -> dict[str, Any]:
        return {"importer": self.importer, "spec": self.spec}

    def tensors(self, prepared: Prepared) -> Iterator[tuple[str, NDArray[np.int64]]]:
        yield from self.step(prepared.codes[0])

    def step(self, codes: NDArray[np.int64], *, fresh: bool = True) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Every tensor after one step, as `tensors`; `fresh` as in `Simulator.run`."""
        found = self.simulator.run(self.model.samples(codes), fresh=fresh)
        for node in self.graph.nodes:
            if node.name in self.model.network.readings:
                yield node.name, self.model.codes(node.name, found)

    def compute(self, prepared: Prepared) -> tuple[Codes, ...]:
        found = dict(self.tensors(prepared))
        return tuple(found[node.name].astype(np.int32) for node in self.graph.outputs)


class WindowEngine(BaseEngine):
    """A graph of any number of states as a module of a simulator's neurons, which integrate a window and then drain.

    Args:
        graph: A valid graph; its activations have steps of equal size.
        importer: snnTorch or SpikingJelly.

    Raises:
        SpikingError: A node cannot be computed with spikes.
        MissingDependencyError: The simulator is not installed.
    """

    def __init__(self, graph: Graph, importer: Importer) -> None:
        super().__init__(graph)
        check_version(importer.value, f"the engine {importer.value}")
        self.importer, self.name = importer, importer.value
        from maqd.spiking.modules import to_snntorch, to_spikingjelly

        self.module = (to_snntorch if importer is Importer.SNNTORCH else to_spikingjelly)(graph)

    def options(self) -> dict[str, Any]:
        return {"importer": self.importer}

    def tensors(self, prepared: Prepared) -> Iterator[tuple[str, NDArray[np.int64]]]:
        torch = require("torch", self.name)
        found = self.module.run(*(torch.from_numpy(codes) for codes in prepared.codes))
        for node in self.graph.nodes:
            yield node.name, found[node.name].numpy()

    def compute(self, prepared: Prepared) -> tuple[Codes, ...]:
        found = dict(self.tensors(prepared))
        return tuple(found[node.name].astype(np.int32) for node in self.graph.outputs)


def snntorch_engine(graph: Graph) -> BaseEngine:
    """snnTorch: NIR for graphs of codes 0 and 1, and windows that drain for more states."""
    return _engine(graph, Importer.SNNTORCH)


def spikingjelly_engine(graph: Graph) -> BaseEngine:
    """SpikingJelly: NIR for graphs of codes 0 and 1, and windows that drain for more states."""
    return _engine(graph, Importer.SPIKINGJELLY)


def norse_engine(graph: Graph) -> BaseEngine:
    """norse, by NIR."""
    return NirEngine(graph, Importer.NORSE)


def sinabs_engine(graph: Graph) -> BaseEngine:
    """sinabs, by NIR."""
    return NirEngine(graph, Importer.SINABS)


def _engine(graph: Graph, importer: Importer) -> BaseEngine:
    states = [(node.states.count, node.states.low) for node in graph.nodes if isinstance(node, Activation)]
    two = all(one == (2, 0) for one in states)
    return NirEngine(graph, importer) if two else WindowEngine(graph, importer)
