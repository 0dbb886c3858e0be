"""The spiking simulators that people use: the graph's integers in every tensor. `make test-spiking` runs these."""

import os

import pytest
from effort import LONG
from spiking_networks import spiking_network

from maqd.errors import MissingDependencyError
from maqd.export.nir import Importer
from maqd.graph import interpreter
from maqd.runtime import ENGINES, inputs, simulators
from maqd.runtime.simulators import SIMULATORS, SPEC_READERS, NirEngine, WindowEngine, check_version, installed
from maqd.runtime.verify import verify

GRAPHS = int(os.environ.get("MAQD_SPIKING_GRAPHS", "100"))
"""Random graphs in each simulator; sinabs, which starts anew for each of them, has a twentieth."""
FRAMES = 20

long = pytest.mark.skipif(not LONG, reason="long: make test-spiking runs it")


def needs(importer: Importer) -> None:
    if not installed(importer):
        pytest.skip(f"{importer.value} is not installed: make setup-spiking setup-sinabs")


@long
@pytest.mark.parametrize("importer", SIMULATORS)
@pytest.mark.parametrize("spec", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_files_give_the_integers_of_random_graphs_in_every_simulator(importer: Importer, spec: bool):
    needs(importer)
    if spec and importer not in SPEC_READERS:
        return
    values = 0
    for seed in range(1 + GRAPHS // 20 if importer is Importer.SINABS else GRAPHS):
        graph = spiking_network(seed, 2)
        engine = NirEngine(graph, importer, spec=spec)
        result = verify(graph, [engine], [inputs.random(graph, 4, seed=seed)])
        assert result.ok, (seed, result.engines[0].first)
        values += result.engines[0].values
    assert values > 100 * GRAPHS or importer is Importer.SINABS


@long
@pytest.mark.parametrize("importer", SIMULATORS)
@pytest.mark.filterwarnings("ignore")
def test_frames_of_a_stream_give_their_own_integers(importer: Importer):
    needs(importer)
    leaks_completely = importer in (Importer.SNNTORCH, Importer.NORSE)
    alone = importer is Importer.SINABS  # each call starts a process
    for seed in range(1 if alone else 3):
        graph = spiking_network(seed, 2)
        engine = NirEngine(graph, importer)
        for frame in range(3 if alone else FRAMES):
            (codes,) = inputs.prepare(graph, *inputs.random(graph, 1, seed=frame)).codes
            found = dict(engine.step(codes, fresh=not leaks_completely))
            for name, wanted in interpreter.layers(graph, codes):
                assert name not in found or (found[name] == wanted).all(), (seed, frame, name)


@long
@pytest.mark.parametrize("importer", [Importer.SNNTORCH, Importer.SPIKINGJELLY])
@pytest.mark.parametrize("states", [2, 4, 8, 16])
@pytest.mark.filterwarnings("ignore")
def test_windows_that_drain_give_the_integers_of_random_graphs(importer: Importer, states: int):
    needs(importer)
    for seed in range(1 + GRAPHS // 4):
        graph = spiking_network(seed, states)
        result = verify(graph, [WindowEngine(graph, importer)], [inputs.random(graph, 4, seed=seed)])
        assert result.ok, (seed, result.engines[0].first)
        assert result.engines[0].tensors == len(graph.nodes)


@long
@pytest.mark.parametrize("name", ["snntorch", "spikingjelly", "norse", "sinabs"])
@pytest.mark.filterwarnings("ignore")
def test_simulators_are_engines(name: str):
    needs(Importer(name))
    for states in (2, 4) if name in ("snntorch", "spikingjelly") else (2,):
        graph = spiking_network(3, states)
        engine = ENGINES[name].make(graph)
        (given,) = inputs.random(graph, 5)
        assert (engine.run(given) == ENGINES["numpy"].make(graph).run(given)).all()


def test_a_missing_or_old_simulator_is_an_error_with_its_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(simulators.importlib.metadata, "version", _absent)
    with pytest.raises(MissingDependencyError, match=r"test needs nirtorch, which is not installed; .*\[spiking\]"):
        check_version("nirtorch", "this test")
    monkeypatch.setattr(simulators.importlib.metadata, "version", lambda _: "1.0.3.post1")
    with pytest.raises(MissingDependencyError, match=r"needs norse 1.1 or newer, got 1.0.3.post1; make setup-spiking"):
        check_version("norse", "this test")
    check_version("snntorch", "this test")
    monkeypatch.setenv("MAQD_SINABS", "/nowhere/python")
    with pytest.raises(MissingDependencyError, match=r"sinabs needs an environment of its own.* make setup-sinabs"):
        ENGINES["sinabs"].make(spiking_network(0, 2))


def _absent(package: str) -> str:
    raise simulators.importlib.metadata.PackageNotFoundError(package)
