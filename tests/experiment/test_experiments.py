"""Experiments: measured once, resumable, with pages for whatever is measured."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from effort import long
from graphs import every_node

from maqd.cli import main
from maqd.errors import ConfigError
from maqd.experiment import fixed_point, single_step
from maqd.experiment.base import Experiment, Found, Place, measure_all, settings_of, table
from maqd.experiment.batch_size import BatchSize, Training
from maqd.experiment.findings import Figure, Finding, append_finding, read_findings
from maqd.experiment.functions import Function, Functions
from maqd.experiment.table import EXPERIMENTS, find_experiment, write_page
from maqd.graph import Conv, Weighted, interpreter
from maqd.lowering import lower
from maqd.numerics.fixedpoint import AffineForm
from maqd.recipes import Budget
from maqd.runtime.inputs import prepare, random
from maqd.settings.model import Architecture
from maqd.settings.quantization import Norm, WeightMethod
from maqd.training.progress import Output
from maqd.training.runs import Run


@dataclass(frozen=True, kw_only=True)
class Toy:
    value: int


class Squares(Experiment[Toy]):
    name, title, source, text = "squares", "Squares", "nothing", "Numbers times themselves."

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.measured: list[tuple[int, int]] = []

    def points(self, budget: Budget) -> Sequence[Toy]:
        return [Toy(value=value) for value in range(3)]

    def seeds(self, budget: Budget) -> int:
        return 2

    def figures(self, point: Toy, seed: int, run: Run | None) -> Mapping[str, Figure]:
        assert run is None
        if point.value == self.fails_at:
            raise ConfigError("interrupted")
        self.measured.append((point.value, seed))
        return {"square": float(point.value**2 + seed)}

    def lines(self, found: Found) -> Iterator[str]:
        yield from table(
            ("value", "square"), [(str(p.value), found.text(p, "square")) for p in self.points(Budget.CPU)]
        )

    def draw(self, found: Found, picture: Any) -> None:
        picture.subplots().plot([0, 1])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(
        results=tmp_path / "results.jsonl",
        runs=tmp_path / "runs",
        data=None,
        cache=None,
        threads=1,
        output=Output(io.StringIO()),
    )


def test_what_is_measured_is_not_measured_again(place: Place):
    broken = Squares(fails_at=2)
    with pytest.raises(ConfigError, match="interrupted"):
        measure_all(broken, Budget.CPU, place)
    assert broken.measured == [(0, 0), (1, 0)]
    page = write_page(broken, place.results, place.runs.parent)
    assert page.read_text().endswith("Not made yet: 4 of the 6 measurements of the CPU's budget.\n")
    whole = Squares()
    assert measure_all(whole, Budget.CPU, place) == 4
    assert whole.measured == [(2, 0), (0, 1), (1, 1), (2, 1)]
    assert measure_all(Squares(fails_at=0), Budget.CPU, place) == 0
    page = write_page(whole, place.results, place.runs.parent)
    assert "| 2 | 4.50 +- 0.71 |" in page.read_text()
    assert "Not made yet" not in page.read_text()
    assert {path.name for path in page.parent.iterdir()} == {
        "results.jsonl", "squares.md", "squares.png", "squares.svg",
    }  # fmt: skip


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_points_differ_and_so_do_their_runs(experiment: Experiment[Any]):
    assert find_experiment(experiment.name) is experiment
    points = [point for budget in Budget for point in experiment.points(budget)]
    by_settings = {tuple(settings_of(point).items()): point for point in points}
    names: dict[str, Any] = {}
    for point in by_settings.values():
        for phase in experiment.phases(point):
            assert names.setdefault(phase.name, point) == point, phase.name
    for budget in Budget:
        settings = [tuple(settings_of(point).items()) for point in experiment.points(budget)]
        assert len(set(settings)) == len(settings)


def plausible(experiment: Experiment[Any], point: Any, seed: int) -> dict[str, float | list[float]]:
    """Figures of the right names and shapes, without the work."""
    shifts = len(fixed_point.SHIFTS)
    known: dict[str, dict[str, float | list[float]]] = {
        "functions": {},
        "batch-size": {
            "train_loss": 0.5, "train_accuracy": 95.0, "test_loss": 0.6, "accuracy": 90.0 + seed, "kept_bytes": 1e6,
        },
        "states": {"accuracy": 80.0 + seed, "test_loss": 0.5},
        "ablation": {"accuracy": 97.0 + seed, "test_loss": 0.1},
        "sparsity": {
            "accuracy": 97.0, "r_w": 0.5, "r_a": 0.25 + seed / 100, "r_w_by_layer": [0.4, 0.6],
            "r_a_by_layer": [0.2, 0.3],
        },
        "bn-fixed-point": {
            "layers": 2.0, "optimal_shift": [4.0, 7.0], "multiplier_bits": [5.0, 6.0], "offset_bits": [9.0, 8.0],
            "wrong_rounded": [0.1] * shifts, "wrong_powers": [0.2] * shifts, "classes_rounded": [0.9] * shifts,
            "classes_powers": [0.8] * shifts,
        },
        "single-step": {
            "accuracy": 97.0, "macs": 1000.0, "hidden_macs": 800.0, "hidden_events": 80.0 + seed,
            "float_nanojoules": 4.6, "nanojoules": 0.1,
        },
    }  # fmt: skip
    return known[experiment.name] or dict(experiment.figures(point, seed, None))


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_every_experiment_writes_its_page(experiment: Experiment[Any], tmp_path: Path):
    results = tmp_path / "results.jsonl"
    for point in experiment.points(Budget.CPU):
        for seed in range(experiment.seeds(Budget.CPU)):
            finding = Finding(
                experiment=experiment.name, point=settings_of(point), seed=seed,
                figures=plausible(experiment, point, seed), config=(), revision="r", versions={}, machine="m",
                seconds=1.0,
            )  # fmt: skip
            append_finding(results, finding)
    first, second = tmp_path / "first", tmp_path / "second"
    page = write_page(experiment, results, first)
    write_page(experiment, results, second)
    text = page.read_text()
    assert text.startswith(f"# {experiment.title}\n")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.endswith("|  |")]
    assert len(rows) > 2, text
    svg, png = (first / f"{experiment.name}.{kind}" for kind in ("svg", "png"))
    assert svg.read_bytes() == (second / svg.name).read_bytes()
    assert png.read_bytes()[:4] == b"\x89PNG"


def test_a_page_needs_a_measurement(tmp_path: Path):
    with pytest.raises(ConfigError, match="holds no measurement of functions; run maqd experiment functions"):
        write_page(Functions(), tmp_path / "none.jsonl", tmp_path)


@pytest.mark.parametrize("name", ["functions.md", "functions.svg", "functions.png"])
def test_only_pages_and_pictures_of_experiments_are_replaced(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / name).write_text("mine")
    assert main(["experiment", "functions", "-o", str(tmp_path)]) == 1
    assert f"{tmp_path / name} was not written by maqd experiment functions; name another" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_the_command_lists_refuses_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert main(["experiment"]) == 0
    assert all(experiment.name in capsys.readouterr().out for experiment in EXPERIMENTS[:1])
    assert main(["experiment", "nothing"]) == 2
    assert "there is no experiment 'nothing'; the experiments are functions" in capsys.readouterr().err
    assert main(["experiment", "functions", "--threads", "0"]) == 2
    assert "--threads must be at least 1, got 0" in capsys.readouterr().err
    monkeypatch.setattr(Functions, "points", lambda self, budget: [Function(states=3, signed=True)])
    assert main(["experiment", "functions", "-o", str(tmp_path / "out"), "--json"]) == 0
    assert '"measured": 1' in capsys.readouterr().out
    assert [one.point for one in read_findings(tmp_path / "out" / "results.jsonl")] == [{"states": 3, "signed": True}]
    assert (tmp_path / "out" / "functions.md").exists()


def test_events_are_products_of_two_numbers_that_are_not_zero():
    graph = every_node()
    (images,) = random(graph, 3, seed=1)
    found = single_step.count_events(graph, images)
    tensors = dict(interpreter.layers(graph, *prepare(graph, images).codes))
    weighted = [node for node in graph.nodes if isinstance(node, Weighted)]
    assert set(found) == {node.name for node in weighted}
    checked = 0
    for node in weighted:
        there = torch.from_numpy(tensors[node.inputs[0]] != 0).double()
        weight = torch.from_numpy(node.weight.unpack() != 0).double()
        if isinstance(node, Conv) and there.ndim == 4 and node.trailing in ((), node.padding):
            events = F.conv2d(there, weight, None, node.stride, node.padding, node.dilation, node.groups)
        elif there.ndim == 2:
            events = there @ weight.T
        else:
            continue
        assert found[node.name].events == float(events.sum()) / 3
        checked += 1
    assert checked >= 2


def test_optimal_maps_have_no_wrong_code_and_rounded_ones_do():
    point = fixed_point.Normalizations(architecture=Architecture.DIGITS, act_states=4, image_size=8)
    network = fixed_point._untrained(point, 0)
    graph = lower(network, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), affine=AffineForm.THRESHOLDS).graph
    layers = fixed_point._layers(network, graph)
    assert len(layers) == 3
    optimal = {name: layer.optimal for name, layer in layers.items()}
    assert fixed_point._wrong(layers, optimal) == 0
    shares = [fixed_point._wrong(layers, fixed_point._rounded(layers, shift)) for shift in (2, 10, 20)]
    assert 1 > shares[0] > shares[1] > shares[2]
    assert shares[2] < 1e-3
    images = np.random.default_rng(0).integers(0, 256, (16, 3, 8, 8), dtype=np.uint8)
    assert fixed_point._same_classes(graph, optimal, images) == 1
    dead = {name: replace(one, multiplier=0 * one.multiplier, offset=0 * one.offset) for name, one in optimal.items()}
    assert fixed_point._same_classes(graph, dead, images) < 1


@long
def test_a_training_of_few_steps_is_measured_and_not_trained_again(place: Place, monkeypatch: pytest.MonkeyPatch):
    point = Training(norm=Norm.LBN, weights=WeightMethod.PLAIN, batch=512)
    monkeypatch.setattr(BatchSize, "points", lambda self, budget: [point])
    monkeypatch.setattr(BatchSize, "seeds", lambda self, budget: 1)
    place = replace(place, data="of CIFAR, not for digits")
    assert measure_all(BatchSize(), Budget.CPU, place) == 1
    (found,) = read_findings(place.results)
    assert 0 < found.number("train_loss") < 5
    assert 5 < found.number("train_accuracy") <= 100
    assert found.number("kept_bytes") > 512 * 64
    assert found.config[0]["model"]["quant"]["weight_method"] == "plain"
    assert measure_all(BatchSize(), Budget.CPU, place) == 0
