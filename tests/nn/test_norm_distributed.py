"""Two processes count as one: their statistics are those of the joint batch."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from distributed_worker import CASES, SPLITS, run, work

Result = dict[str, Any]


@pytest.fixture(scope="module")
def processes() -> Iterator[list[list[Result]]]:
    """The results of all cases, one list a process: starting processes is what takes the time."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, args=(folder,), nprocs=2)
        yield [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    """Float64 sums in another order."""
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


SYNCED = [i for i, case in enumerate(CASES) if case[3]]
ALONE = [i for i, case in enumerate(CASES) if not case[3]]


def name(number: int) -> str:
    kind, split, quantized, _ = CASES[number]
    return f"{kind.name}-{split}{'-quantized' if quantized else ''}"


@pytest.mark.parametrize("number", SYNCED, ids=name)
def test_two_processes_equal_one_on_the_joint_batch(number: int, processes: list[list[Result]]):
    kind, _, quantized, _ = CASES[number]
    joint = run(kind, quantized=quantized, sync=True, part=slice(None))
    first, second = (results[number] for results in processes)
    for step, expected in enumerate(joint["outputs"]):
        together = torch.cat([first["outputs"][step], second["outputs"][step]])
        if quantized:
            assert torch.equal(together, expected)
        close(together, expected)
    for step, expected in enumerate(joint["gradients"]):
        close(torch.cat([first["gradients"][step], second["gradients"][step]]), expected)
    for a, b, expected in zip(first["parameters"], second["parameters"], joint["parameters"], strict=True):
        close(a + b, expected)
    for key, expected in joint["running"].items():
        close(first["running"][key], expected)
        assert torch.equal(first["running"][key], second["running"][key])


@pytest.mark.parametrize("number", [i for i in ALONE if CASES[i][1] == "equal"], ids=name)
def test_without_sync_every_process_keeps_to_its_own_batch(number: int, processes: list[list[Result]]):
    kind, split, quantized, _ = CASES[number]
    size = SPLITS[split][0]
    for results, part in zip(processes, (slice(0, size), slice(size, None)), strict=True):
        alone = run(kind, quantized=quantized, sync=False, part=part)
        for key in ("outputs", "gradients", "parameters"):
            assert all(torch.equal(a, b) for a, b in zip(results[number][key], alone[key], strict=True))
    means = [results[number]["running"]["running_mean"] for results in processes]
    assert not torch.equal(*means)
