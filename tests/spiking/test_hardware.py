"""What a chip must offer for a graph, against what its neurons do; the pictures of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from spiking_networks import spiking_network

from maqd.cli import main
from maqd.errors import SpikingError
from maqd.graph import Graph, Input, Output, container, interpreter
from maqd.runtime import inputs
from maqd.spiking import SpikingNetwork, run_drained
from maqd.spiking.hardware import demands
from maqd.spiking.picture import FACTORS, sweep


@pytest.mark.parametrize("states", [2, 4, 16])
def test_potentials_fit_the_bits_and_schedules_are_those_of_the_neurons(states: int):
    for seed in range(8):
        graph = spiking_network(seed, states)
        network, demand = SpikingNetwork(graph), demands(graph)
        codes = inputs.prepare(graph, *inputs.random(graph, 3, seed=seed)).codes
        simulation = run_drained(network, *codes)
        assert demand.steps == network.latency
        assert demand.neurons == sum(activity.spikes[0, 0].size for activity in simulation.activities.values())
        for layer in demand.layers:
            if layer.spikes == 0:
                values = simulation.tensors[layer.name]
                assert np.abs(values).max() < 2 ** (layer.state_bits - 1)
                continue
            activity, one = simulation.activities[layer.name], network.populations[layer.name]
            full = one.charge(simulation.tensors[one.node.inputs[0]])
            assert max(np.abs(full).max(), np.abs(activity.potential).max()) < 2 ** (layer.state_bits - 1)
            assert (layer.spikes, layer.start, layer.stop) == (states - 1, one.start, one.stop)
            assert activity.counts.max() <= layer.spikes
            assert layer.bias_bits <= layer.state_bits


def test_bits_and_fan_in_of_a_network_by_hand():
    graph = spiking_network(1, 2)
    first = demands(graph).layers[0]
    channels = graph.input.shape[0]
    states = graph["conv1"].weight.states.count  # pyright: ignore[reportAttributeAccessIssue]
    assert first.fan_in == 9 * channels
    gain = int(np.abs(graph["act2"].multiplier).max())  # pyright: ignore[reportAttributeAccessIssue]
    assert first.weight_bits == int(np.ceil(np.log2(states))) + gain.bit_length() - 1
    x = Input(name="x", inputs=(), shape=(3,))
    with pytest.raises(SpikingError, match="has no activation, and so no neurons; lower"):
        demands(Graph(nodes=(x, Output(name="y", inputs=("x",)))))


def test_more_steps_are_swept_and_first_layers_stay_right():
    graph = spiking_network(2, 4)
    network = SpikingNetwork(graph)
    codes = inputs.prepare(graph, *inputs.random(graph, 3)).codes
    points = sweep(network, *codes)
    assert [one.steps for one in points] == [3 * factor for factor in FACTORS]
    assert all(one.wrong["act2"] == 0 and 0 <= one.same <= 1 and one.right is None for one in points)
    wanted = interpreter.run(graph, *codes)[0].reshape(3, -1).argmax(1)
    assert [one.right for one in sweep(network, *codes, labels=wanted)] == [one.same for one in points]


def test_commands_print_what_a_chip_needs_and_draw_who_fires(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    source, picture = tmp_path / "m.maqd", tmp_path / "m.png"
    container.save(spiking_network(2, 4), source)
    assert main(["info", str(source), "--hardware", "generic", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["hardware"], said["layers"][0]["name"]) == ("generic", "act2")
    assert main(["info", str(source), "--hardware", "generic"]) == 0
    assert "neurons that fire" in capsys.readouterr().out
    assert main(["info", str(source), "--hardware", "generic", "--text"]) == 2
    assert main(["spikes", str(source), "--images", "4", "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main(["spikes", str(source), "--picture", str(source)]) == 1
    assert "is the input itself" in capsys.readouterr().err
