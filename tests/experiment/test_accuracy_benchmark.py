"""`benchmarks/accuracy.py` reads a file of results without data, and its cases are complete."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from test_results import FEW, FLOAT, cost, row

from maqd.experiment.results import Case, append

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


def test_json_has_the_judged_keys(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "accuracy.jsonl"
    append(path, row(FLOAT, correct=7900))
    append(path, row(FEW, correct=7700))
    monkeypatch.setattr(sys, "argv", ["accuracy.py", "--json", "--results", str(path)])
    benchmark.main()
    found = json.loads(capsys.readouterr().out)
    assert found["vgg_narrow_short_float_accuracy"] == 79
    assert found["vgg_narrow_short_maqd_w3a4_accuracy"] == 77
    assert found["vgg_narrow_short_maqd_w3a4_gap"] == 2
    assert found["vgg_narrow_short_maqd_w3a4_spread"] == 0


def test_cases_of_a_schedule_train_equally_long(benchmark: ModuleType) -> None:
    def images(phase: object) -> int:
        config = phase.config  # pyright: ignore[reportAttributeAccessIssue]
        return config.epochs * (config.data.samples_per_epoch or 50_000)

    table = benchmark.cases()
    for case, phases in table.items():
        assert case.reference in table, case.key
        assert sum(map(images, phases)) == sum(map(images, table[case.reference])), case.key


def test_phases_of_one_name_are_the_same_run(benchmark: ModuleType) -> None:
    seen: dict[str, object] = {}
    for phases in benchmark.cases().values():
        for phase in phases:
            assert seen.setdefault(phase.name, phase.config) == phase.config


def test_a_case_that_is_unknown_is_named(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["accuracy.py", "--measure", "--runs", str(tmp_path), "--cases", "none"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "there is no case 'none'" in capsys.readouterr().err


def test_the_fronts_are_keys_of_the_best_network_within_the_cost_of_int8(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, costs = tmp_path / "accuracy.jsonl", tmp_path / "costs.jsonl"
    narrow = Case(network="resnet8", schedule="short", method="maqd", weight_states=3, act_states=4)
    wide = Case(network="resnet8w32", schedule="short", method="maqd", weight_states=3, act_states=4)
    append(results, row(narrow, correct=7000))
    append(results, row(wide, correct=8000))
    append(results, row(Case(network="resnet8", schedule="short", method="float"), correct=7500))
    append(costs, cost(narrow, instructions=14_000_000, flash=30_000, ram=40_000))
    append(costs, cost(wide, instructions=29_000_000, flash=100_000, ram=49_000))
    arguments = ["accuracy.py", "--results", str(results), "--costs-file", str(costs)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--json"])
    benchmark.main()
    found = json.loads(capsys.readouterr().out)
    assert (found["pareto_equal_accuracy"], found["pareto_equal_case"]) == (80, f"{wide.key} fast")
    assert (found["pareto_small_accuracy"], found["pareto_small_case"]) == (70, f"{narrow.key} fast")
    for name in ("PAGE", "PICTURE", "FRONT"):
        monkeypatch.setattr(benchmark, name, tmp_path / f"{name}.png")
    monkeypatch.setattr(sys, "argv", [*arguments, "--table"])
    benchmark.main()
    page = (tmp_path / "PAGE.png").read_text()
    assert "| 32 (3,4) fast | short | 80.00 | 29.0 | 100.0 | 49.0 |" in page
    assert "| 16 int8 | short | 75.00 | 29.7 | 102.2 | 49.7 |" in page
    assert (tmp_path / "FRONT.png").stat().st_size > 10_000
