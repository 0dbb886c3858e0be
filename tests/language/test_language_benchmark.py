"""The benchmark of language models reads the rows that are there and states the gap on the seeds that both have."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("language_benchmark", ROOT / "benchmarks" / "language.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_means_over_seeds_and_the_gap_is_paired(benchmark: ModuleType):
    values = {"float": {0: 2.0, 1: 2.2}, "w3": {0: 2.03, 2: 9.0}, "b158": {0: 2.5}}
    rows = [
        {"recipe": f"shakespeare-{name}", "seed": seed, "bits_per_character": value}
        for name, seeds in values.items()
        for seed, value in seeds.items()
    ]
    found = benchmark.accuracy(rows)
    assert found["float_bpc"] == 2.1
    assert (found["float_seeds"], found["b158_spread"]) == (2, 0.0)
    assert found["w3_bpc_gap"] == pytest.approx(0.03)
    assert "w3a15_bpc" not in found


def test_the_rows_that_are_checked_in_are_of_recipes(benchmark: ModuleType):
    rows = benchmark.read_rows()
    assert {row["recipe"] for row in rows if "recipe" in row} <= set(benchmark.RECIPES)
    assert benchmark.accuracy(rows)["w3_bpc_gap"] < 0.05
