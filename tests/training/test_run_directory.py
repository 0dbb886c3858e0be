"""Runs do not write over each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import Silent, entries, last, names

from maqd.errors import CheckpointError, ConfigError
from maqd.settings.training import TrainConfig
from maqd.training.run_directory import RunDirectory, locked


def test_live_runs_are_left_alone(tmp_path: Path, config: TrainConfig, run: Silent) -> None:
    directory = RunDirectory(Path(str(config.run)))
    with locked(directory):
        with pytest.raises(ConfigError, match=rf"in use by a training run \(process {os.getpid()}\)"):
            run(config, overwrite=True)
        with pytest.raises(ConfigError, match="in use"):
            run(config, resume=True)
    run(config)


def test_a_dead_process_holds_no_lock(config: TrainConfig) -> None:
    directory = RunDirectory(Path(str(config.run)))
    script = (
        "import os, sys; from pathlib import Path; from maqd.training.run_directory import RunDirectory, locked\n"
        "with locked(RunDirectory(Path(sys.argv[1]))): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(directory.path)], check=True)
    assert directory.lock.read_text().strip().isdigit()
    with locked(directory):
        pass


def test_finished_runs_are_kept_unless_told_otherwise(config: TrainConfig, run: Silent) -> None:
    run(config)
    before = last(config).read_bytes()
    with pytest.raises(ConfigError, match=r"--resume.*--overwrite.*--run"):
        run(config)
    with pytest.raises(ConfigError, match="exclude each other"):
        run(config, resume=True, overwrite=True)
    assert last(config).read_bytes() == before
    run(config, overwrite=True)
    assert len(entries(config, "test")) == 2
    assert len(list((Path(str(config.run)) / "tensorboard").iterdir())) == 1


def test_there_must_be_something_to_resume(config: TrainConfig, run: Silent) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        run(config, resume=True)
    run(config)


def test_overwriting_leaves_other_files(config: TrainConfig, run: Silent) -> None:
    run(config)
    notes = Path(str(config.run)) / "notes.txt"
    notes.write_text("mine")
    run(config, overwrite=True)
    assert notes.read_text() == "mine"


def test_files_are_no_directories(config: TrainConfig, run: Silent) -> None:
    Path(str(config.run)).write_text("")
    with pytest.raises(ConfigError, match="a file is in the way"):
        run(config)


def test_nothing_else_is_written(config: TrainConfig, run: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Path(str(config.run)).parent
    monkeypatch.chdir(where)
    run(config)
    assert names(where) == ["run"]
    assert names(where / "run") == [".lock", "checkpoints", "config.yaml", "metrics.jsonl", "tensorboard"]
