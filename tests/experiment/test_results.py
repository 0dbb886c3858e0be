"""Files of results: many writers, torn lines, and what is read out of them."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from maqd.errors import DataError
from maqd.experiment.results import (
    Case,
    Cost,
    Limit,
    Row,
    append,
    best_within,
    figures,
    read,
    read_costs,
    select,
    summarize,
)

FLOAT = Case(network="vgg_narrow", schedule="short", method="float")
FEW = replace(FLOAT, method="maqd", weight_states=3, act_states=4)


def row(case: Case = FEW, *, seed: int = 0, correct: int = 7654, images: str = "test") -> Row:
    return Row(
        case=case,
        seed=seed,
        images=images,
        correct=correct,
        total=10000,
        config=({"epochs": 4, "optim": {"lr": 4e-3}},),
        revision="60cb477",
        versions={"python": "3.11", "torch": "2.13.0"},
        machine="a processor",
        seconds=12.5,
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "results" / "accuracy.jsonl"
    assert read(path) == []
    rows = [row(), row(FLOAT, seed=3), row(images="validation")]
    for each in rows:
        append(path, each)
    assert read(path) == rows


def write_many(path: Path, seed: int) -> None:
    for k in range(50):
        append(path, row(seed=100 * seed + k))


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, seed)) for seed in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert sorted(found.seed for found in read(path)) == sorted(100 * s + k for s in range(4) for k in range(50))


@pytest.mark.parametrize("kept", [0, 1, 2])
@pytest.mark.parametrize("length", [1, 40, -1])
def test_a_torn_last_line_is_passed_over_and_then_removed(tmp_path: Path, kept: int, length: int) -> None:
    path = tmp_path / "accuracy.jsonl"
    for seed in range(kept + 1):
        append(path, row(seed=seed))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:length])
    assert [found.seed for found in read(path)] == list(range(kept))
    append(path, row(seed=9))
    assert [found.seed for found in read(path)] == [*range(kept), 9]
    assert path.read_bytes().endswith(b"\n")


def test_a_torn_line_longer_than_one_look_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.jsonl"
    append(path, row())
    path.write_bytes(path.read_bytes() + b"x" * 200_000)
    append(path, row(seed=1))
    assert [found.seed for found in read(path)] == [0, 1]


def edited(**changes: object) -> str:
    tree = {**json.loads(json.dumps({**vars(row()), "case": vars(FEW)})), **changes}
    return json.dumps({key: value for key, value in tree.items() if value is not None})


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("", "Expecting value"),
        ("[1]", "its fields are"),
        (edited(seed=None), "its fields are"),
        (edited(more=1), "its fields are"),
        (edited(seed="0"), "seed is '0'"),
        (edited(seed=True), "seed is True"),
        (edited(correct=10001), "10001 of 10000 images"),
        (edited(total=0, correct=0), "0 of 0 images"),
        (edited(case={"network": "vgg"}), "schedule"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "accuracy.jsonl"
    append(path, row())
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"accuracy\.jsonl:2 is no row of results") as error:
        read(path)
    assert what in str(error.value)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"accuracy\.jsonl cannot be written"):
        append(tmp_path / "file" / "accuracy.jsonl", row())


def test_the_last_row_of_a_seed_counts() -> None:
    rows = [row(seed=1, correct=1), row(seed=0, correct=2), row(seed=1, correct=3), row(seed=2, images="validation")]
    assert [found.correct for found in select(rows, FEW)] == [2, 3]


def test_summary_has_mean_spread_and_gap() -> None:
    rows = [row(seed=s, correct=c) for s, c in ((0, 7500), (1, 7600), (2, 7700))]
    rows += [row(FLOAT, seed=s, correct=c) for s, c in ((0, 7800), (1, 7900))]
    few, reference = summarize(rows)
    assert (few.case, few.seeds, few.mean, few.spread) == (FEW, 3, 76.0, 1.0)
    assert few.gap == pytest.approx(2.5)
    assert reference.gap is None
    assert figures([few, reference]) == {
        "vgg_narrow_short_maqd_w3a4_accuracy": 76.0,
        "vgg_narrow_short_maqd_w3a4_spread": 1.0,
        "vgg_narrow_short_maqd_w3a4_seeds": 3,
        "vgg_narrow_short_maqd_w3a4_gap": 2.5,
        "vgg_narrow_short_float_accuracy": 78.5,
        "vgg_narrow_short_float_spread": 0.707,
        "vgg_narrow_short_float_seeds": 2,
    }


def test_a_schedule_without_its_float_network_has_no_gap() -> None:
    (only,) = summarize([row(), row(replace(FLOAT, schedule="e30"))])[:1]
    assert only.gap is None
    assert only.spread == 0


def cost(case: Case = FEW, *, strategy: str = "fast", instructions: int = 10, flash: int = 20, ram: int = 30) -> Cost:
    return Cost(
        case=case,
        seed=0,
        target="cortex-m4",
        strategy=strategy,
        instructions=instructions,
        flash=flash,
        ram=ram,
        revision="60cb477",
        tools=("gcc 12", "qemu 7"),
    )


def test_costs_are_read_as_they_were_written_and_kept_apart_from_rows(tmp_path: Path) -> None:
    path = tmp_path / "costs.jsonl"
    costs = [cost(), cost(FLOAT, ram=7)]
    for each in costs:
        append(path, each)
    assert read_costs(path) == costs
    with pytest.raises(DataError, match=r"costs\.jsonl:1 is no row of results: its fields are"):
        read(path)


def test_the_best_case_within_a_limit_has_the_last_cost_that_was_measured() -> None:
    wider = replace(FEW, network="wider")
    unknown = replace(FEW, network="unknown")
    summaries = summarize([row(correct=7000), row(wider, correct=8000), row(unknown, correct=9000)])
    limit = Limit(instructions=10, flash=20, ram=30)
    costs = [cost(), cost(wider, instructions=11)]
    found = best_within(summaries, costs, limit)
    assert found is not None
    assert (found[0].case, found[1]) == (FEW, costs[0])
    again = cost(wider, instructions=9)
    found = best_within(summaries, [*costs, again], limit)
    assert found is not None
    assert (found[0].case, found[1]) == (wider, again)
    for name in ("instructions", "flash", "ram"):
        assert best_within(summaries, costs, replace(limit, **{name: 5})) is None
    small = cost(wider, strategy="size", instructions=10, flash=1)
    found = best_within(summaries, [*costs, small], limit)
    assert found is not None
    assert (found[0].case, found[1]) == (wider, small)
