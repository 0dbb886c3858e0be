"""Runs do not write over each other."""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import Silent, entries, full_disk, last, names

from maqd.errors import CheckpointError, ConfigError, DataError, OutputError
from maqd.settings.data import DataConfig, Source
from maqd.settings.training import TrainConfig
from maqd.training import checkpoint as checkpoints
from maqd.training.run_directory import RunDirectory, locked


def test_live_runs_are_left_alone(tmp_path: Path, config: TrainConfig, run: Silent) -> None:
    directory = RunDirectory(Path(str(config.run)))
    with locked(directory):
        with pytest.raises(ConfigError, match=rf"in use by a training run \(process {os.getpid()}\)"):
            run(config, overwrite=True)
        with pytest.raises(ConfigError, match="in use"):
            run(config, resume=True)
    run(config)


def test_a_name_that_logs_cannot_have_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="a name that UTF-8 can hold"),
        locked(RunDirectory(tmp_path / os.fsdecode(b"\xff"))),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


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
    with pytest.raises(OutputError, match="a file is in the way"):
        run(config)


def test_nothing_else_is_written(config: TrainConfig, run: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Path(str(config.run)).parent
    monkeypatch.chdir(where)
    run(config)
    assert names(where) == ["run"]
    assert names(where / "run") == [".lock", "checkpoints", "config.yaml", "metrics.jsonl", "tensorboard"]


def files(directory: Path) -> dict[str, bytes]:
    """All files below a directory but the lock."""
    paths = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def test_a_run_whose_last_checkpoint_was_renamed_is_still_a_run(config: TrainConfig, run: Silent) -> None:
    run(config)
    last(config).rename(last(config).with_name("good.ckpt"))
    before = files(Path(str(config.run)))
    with pytest.raises(ConfigError, match=r"already holds a run without last\.ckpt \(config\.yaml is there\)"):
        run(config)
    with pytest.raises(CheckpointError, match=r"no checkpoint to resume from; start it again with --overwrite"):
        run(config, resume=True)
    assert files(Path(str(config.run))) == before


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "checkpoints/mine.ckpt", "tensorboard/notes"])
def test_a_directory_that_holds_any_part_of_a_run_is_left_alone(config: TrainConfig, run: Silent, name: str) -> None:
    directory = Path(str(config.run))
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text("mine: 1")
    with pytest.raises(ConfigError, match="already holds a run"):
        run(config)
    with pytest.raises(ConfigError, match=r"no config\.yaml that maqd wrote: it is not replaced"):
        run(config, overwrite=True)
    assert files(directory) == {name: b"mine: 1"}


def test_overwriting_removes_only_what_a_run_wrote(config: TrainConfig, run: Silent) -> None:
    run(config)
    directory = Path(str(config.run))
    mine = {"checkpoints/good.ckpt": b"good", "tensorboard/notes.txt": b"notes", "notes.txt": b"mine"}
    for name, content in mine.items():
        (directory / name).write_bytes(content)
    (directory / "checkpoints" / ".last.ckpt.1.2.tmp").write_bytes(b"of a killed process")
    run(config, overwrite=True)
    after = files(directory)
    assert mine.items() <= after.items()
    assert len(after) == len(mine) + 4  # last checkpoint, configuration, metrics, one log


def test_options_that_a_user_wrote_are_not_replaced(config: TrainConfig, run: Silent) -> None:
    directory = RunDirectory(Path(str(config.run)))
    directory.path.mkdir()
    directory.config.write_text("# mine\nepochs: 3\n")  # with --run . beside one's own --config
    with pytest.raises(ConfigError, match=r"no config\.yaml that maqd wrote: it is not replaced"):
        run(config, overwrite=True)
    assert files(directory.path) == {"config.yaml": b"# mine\nepochs: 3\n"}


def test_the_configuration_is_there_at_any_time(
    config: TrainConfig, run: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config)
    directory = RunDirectory(Path(str(config.run)))
    before = directory.config.read_bytes()
    assert before.startswith(b"# Written by maqd train, which may replace it.\n")
    monkeypatch.setattr(RunDirectory, "clear", lambda self: (RunDirectory._written(self), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        run(config, overwrite=True)
    assert directory.config.read_bytes() == before


def test_a_run_that_cannot_start_replaces_none(config: TrainConfig, run: Silent, tmp_path: Path) -> None:
    run(config)
    before = files(Path(str(config.run)))
    data = DataConfig(source=Source.IMAGE_FOLDER, path=str(tmp_path / "nothing"))
    with pytest.raises(DataError):
        run(replace(config, data=data), overwrite=True)
    assert files(Path(str(config.run))) == before


def test_a_full_disk_before_the_first_checkpoint_does_not_advise_resuming(
    config: TrainConfig, run: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = checkpoints.write_run_file

    def write(path: Path, data: bytes) -> None:
        with full_disk(1000 if path.suffix == ".ckpt" else resource.RLIM_INFINITY):
            original(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_run_file", write)
        with pytest.raises(CheckpointError, match=r"free some space and start again with --overwrite$"):
            run(config)
    run(config, overwrite=True)
    assert len(entries(config, "test")) == 2
