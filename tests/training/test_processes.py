"""Runs in processes of their own: Ctrl-C, and several processes that train together."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from effort import long
from small_runs import SMALL, entries, maqd

from maqd.cli import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=long)])
def test_ctrl_c_leaves_a_resumable_checkpoint(here: Path, capsys: pytest.CaptureFixture[str], processes: int) -> None:
    options = ["--config", "small.yaml", "--compute.devices", str(processes)]
    process = maqd("train", *options, "--epochs", "100000", cwd=here)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("epoch      1/100000")
        # As a terminal does: to every process of the group.
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert err == ""
    assert out.splitlines()[-1] == "stopped and saved; continue with: maqd train --run runs/small --resume"
    run = here / "runs/small"
    steps = [entry["step"] for entry in entries(run, "train")]
    assert steps == list(range(1, len(steps) + 1))
    if processes == 1:
        done = len(entries(run, "test"))
        assert main(["train", "--config", "small.yaml", "--resume", "--epochs", str(done + 1)]) == 0
        assert [entry["step"] for entry in entries(run, "train")] == list(range(1, 7 * (done + 1) + 1))
        assert capsys.readouterr().out.startswith(f"resuming runs/small after step {len(steps)}\n")


@long
def test_two_processes_train(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = maqd("train", "--config", "small.yaml", "--compute.devices", "2", cwd=here)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err == ""
    run = here / "runs/small"
    # Each process takes half of the 224 images in batches of 32.
    assert [entry["step"] for entry in entries(run, "train")] == [1, 2, 3, 4, 5, 6]
    assert [entry["total"] for entry in entries(run, "test")] == [360, 360]
    assert main(["eval", "runs/small"]) == 0
    assert capsys.readouterr().out.splitlines() == out.splitlines()[-1:]
    # The same through torchrun, which starts the processes itself. Its parser takes --run for its own without the --.
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "--"]
    command += ["maqd.cli", "train", "--config", "small.yaml", "--run", "again"]
    subprocess.run(command, cwd=here, check=True, timeout=120, capture_output=True)
    assert entries(here / "again", "train") == entries(run, "train")
