"""Files of measurements: what is written is read, and nothing else is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from maqd.errors import DataError
from maqd.experiment.findings import Finding, append_finding, newest, of_point, read_findings

FINDING = Finding(
    experiment="toy",
    point={"norm": "bn", "batch": 8, "full": False, "states": None},
    seed=0,
    figures={"accuracy": 97.5, "layers": [0.25, 0.5]},
    config=[{"epochs": 2}],
    revision="abc",
    versions={"torch": "2"},
    machine="a processor",
    seconds=1.5,
)


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    assert read_findings(path) == []
    append_finding(path, FINDING)
    append_finding(path, replace(FINDING, seed=1))
    assert read_findings(path) == [FINDING, replace(FINDING, seed=1)]
    assert FINDING.number("accuracy") == 97.5
    assert FINDING.numbers("layers") == [0.25, 0.5]


def test_a_torn_last_line_is_passed_over_and_removed(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    append_finding(path, FINDING)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert read_findings(path) == [FINDING]
    append_finding(path, FINDING)
    assert path.read_bytes() == whole + whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "its version is 2, this program reads 1"),
        ({"seed": "0"}, "seed is '0'"),
        ({"figures": {"accuracy": "high"}}, "figure accuracy is 'high'"),
        ({"other": 1}, "its fields are"),
    ],
)
def test_a_line_of_another_kind_is_named(tmp_path: Path, change: dict[str, object], message: str):
    path = tmp_path / "results.jsonl"
    append_finding(path, FINDING)
    line = {**json.loads(path.read_text()), **change}
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_findings(path)
    assert f"{path}:2" in str(caught.value)


def test_the_last_measurement_of_a_point_and_seed_counts():
    again, other = replace(FINDING, seconds=9.0), replace(FINDING, point={**FINDING.point, "batch": 2})
    found = newest([FINDING, other, again, replace(FINDING, experiment="another")], "toy")
    assert found == [again, other]
    assert of_point(found, dict(reversed(FINDING.point.items()))) == [again]
