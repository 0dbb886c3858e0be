"""Measuring: statistics, conventional networks, `maqd bench`."""

import json
import os
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from graphs import every_node

from maqd.bench import timing
from maqd.bench.conventional import Precision, conventional_model
from maqd.bench.peers import PEERS
from maqd.cli import main
from maqd.graph import Conv, Graph, container


def test_percentiles():
    values = [float(value) for value in range(100, 0, -1)]
    assert [timing.percentile(values, percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert timing.percentile([3.0], 50) == 3


def test_calls_alternate_and_ratios_are_of_neighbours(monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []
    clock = count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    times = timing.alternated([lambda: order.append("a"), lambda: order.append("b")], repeats=3, seconds=2)
    # Two calls take a second, so a turn of two seconds is one cold call and three warm ones.
    assert "".join(order) == "aaabbb" + 3 * "aaaabbbb"
    assert [one.cold for one in times] == [(1.0,) * 3] * 2
    assert [one.warm for one in times] == [(1 / 3,) * 3] * 2
    assert timing.ratios([1, 2, 4], [3, 8, 4]).median == 3
    assert timing.spread([5.0]) == timing.Spread(median=5, low=5, high=5, repeats=1)


def test_processors_are_given_back():
    before = os.sched_getaffinity(0)
    with timing.pinned(1) as chosen:
        assert os.sched_getaffinity(0) == set(chosen)
        assert len(chosen) == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("kind", PEERS)
def test_conventional_networks_run_everywhere(kind: type, precision: Precision):
    pytest.importorskip(kind.runtime.value)
    graph = every_node()
    peer = kind(graph, precision, threads=1, batch=2)
    images = np.random.default_rng(0).integers(0, 256, (2, *graph.input.shape), dtype=np.uint8)
    peer.run(peer.input(images))
    assert peer.version


def test_a_conventional_8_bit_network_quantizes_every_convolution():
    graph = every_node()
    model = conventional_model(graph, Precision.INT8)
    made = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(isinstance(node, Conv) for node in graph.nodes)
    for node in convolutions:
        assert [made[name].op_type for name in node.input] == ["DequantizeLinear"] * 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "graph.maqd"
    graph = every_node()
    container.save(Graph(nodes=graph.nodes), path)
    return path


def test_bench_measures_engine_peers_and_layers(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", str(file), "--batch", "1,3", "--repeats", "3", "--peers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["engine"]["batch"] for result in found["results"]] == [1, 3]
    for result in found["results"]:
        engine = result["engine"]
        assert 0 < engine["p50"] <= engine["p90"] <= engine["p99"]
        assert engine["images_per_second"] > 0
        assert {peer["name"] for peer in result["peers"]} <= {
            f"{runtime} {numbers}" for runtime in ("onnxruntime", "openvino") for numbers in ("int8", "float")
        }
        assert all(peer["times_faster"]["repeats"] == 3 for peer in result["peers"])
    assert "onnxruntime int8" in {peer["name"] for peer in found["results"][0]["peers"]}
    assert found["machine"]["threads"] == 1
    assert "stem" in found["layers"][0]["nodes"]
    assert main(["bench", str(file), "--batch", "2", "--repeats", "2", "--threads", "2"]) == 0
    out = capsys.readouterr().out
    assert "threads 2" in out
    assert "p99 us" in out
    assert "random images" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "--batch must be numbers in 1 .. 2^31 - 1 with commas between them, got '0'"),
        (["--batch", "1,x"], "--batch must be numbers in 1 .. 2^31 - 1"),
        (["--repeats", "1"], "--repeats must be at least 2"),
        (["--data.path", "here"], "--data.path belongs to --against RUN"),
    ],
)
def test_bench_refuses(file: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", str(file), *arguments]) == 2
    assert message in capsys.readouterr().err
