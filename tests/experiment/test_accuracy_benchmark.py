"""`benchmarks/accuracy.py` reads a file of results without data, and its cases are complete."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from test_results import FEW, FLOAT, row

from maqd.experiment.results import append

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
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
