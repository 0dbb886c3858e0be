"""Checkpoints that cannot be lost, and files that are none."""

import errno
import os
import pickle
import random
import resource
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Silent, entries, full_disk, last, names

from maqd.errors import CheckpointError
from maqd.settings.training import TrainConfig
from maqd.training import checkpoint as checkpoints
from maqd.training.checkpoint import KEY, SCHEMA, read_checkpoint, write_run_file
from maqd.training.runs import load_network


@pytest.fixture(scope="session")
def trained_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, not to be changed."""
    from maqd.data import DataConfig
    from maqd.models import Architecture, ModelConfig
    from maqd.settings.training import ComputeConfig, Device

    config = TrainConfig(
        run=str(tmp_path_factory.mktemp("trained")),
        epochs=1,
        model=ModelConfig(architecture=Architecture.DIGITS, width=0.25),
        data=DataConfig(batch_size=32, samples_per_epoch=64),
        compute=ComputeConfig(device=Device.CPU, threads=1),
    )
    Silent()(config)
    return last(config)


@pytest.fixture
def copy(trained_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(trained_file, tmp_path / "copy.ckpt"))


def rewrite(path: Path, **changes: Any) -> None:
    """Change entries of a checkpoint's header."""
    tree = torch.load(path, weights_only=True)
    tree[KEY] |= changes
    torch.save(tree, path)


def test_full_disk_keeps_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_run_file(path, b"old" * 1000)
    with full_disk(10_000), pytest.raises(CheckpointError, match="the previous one is intact; free some space"):
        write_run_file(path, b"new" * 10_000)
    assert path.read_bytes() == b"old" * 1000
    assert names(tmp_path) == ["last.ckpt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failure_at_the_end_keeps_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "last.ckpt"
    write_run_file(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync", fail) if call == "fsync" else (Path, "replace", fail)))
    with pytest.raises(CheckpointError, match="No space left"):
        write_run_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["last.ckpt"]


@pytest.mark.usefixtures("ended_threads")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_full_disk_stops_a_run_that_can_be_resumed(config: TrainConfig, run: Silent) -> None:
    config = replace(config, data=replace(config.data, validation=100))
    original, calls = checkpoints.write_run_file, [0]

    def write(path: Path, data: Any) -> None:
        calls[0] += path.suffix == ".ckpt"
        # Best and last of the first epoch succeed.
        with full_disk(1000 if calls[0] > 2 else resource.RLIM_INFINITY):
            original(path, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "write_run_file", write)
        with pytest.raises(CheckpointError, match=r"best\.ckpt cannot be written.*continue with --resume"):
            run(config)
    assert names(last(config).parent) == ["best.ckpt", "last.ckpt"]
    assert read_checkpoint(last(config)).header.position.epoch == 1
    run(config, resume=True)
    assert [entry["epoch"] for entry in entries(config, "validation")] == [1, 2]


def test_checkpoint_holds_only_plain_values(trained_file: Path) -> None:
    tree = torch.load(trained_file, weights_only=True)
    assert tree[KEY]["schema"] == SCHEMA
    assert tree[KEY]["config"]["model"]["architecture"] == "digits"


def test_truncated_files_are_refused(copy: Path) -> None:
    data = copy.read_bytes()
    for length in [0, 1, 100, len(data) // 2, len(data) - 23, len(data) - 1]:
        copy.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=rf"damaged \({length} bytes"):
            read_checkpoint(copy)


def test_flipped_bits_never_change_what_is_read(trained_file: Path, copy: Path) -> None:
    data = trained_file.read_bytes()
    good = read_checkpoint(trained_file)
    refused = 0
    generator = random.Random(0)
    with zipfile.ZipFile(trained_file) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    places = [generator.randrange(len(data)) for _ in range(60)]
    # In the middle of the largest tensor a flip is certain to matter.
    places.append(largest.header_offset + largest.compress_size // 2 + 100)
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << generator.randrange(8)
        copy.write_bytes(flipped)
        try:
            found = read_checkpoint(copy)
        except CheckpointError:
            refused += 1
        else:
            # Padding between the members, time stamps: nothing of meaning was hit.
            assert found.header == good.header
            assert all(torch.equal(value, good.tree["state_dict"][k]) for k, value in found.tree["state_dict"].items())
    assert refused > len(places) // 2
    with pytest.raises(CheckpointError, match="wrong checksum"):
        read_checkpoint(copy)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(path)
    torch.save({"state_dict": {}, "epoch": 3}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of a maqd training run"):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="no checkpoint of a maqd training run"):
        read_checkpoint(path)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({KEY: Trap(tmp_path / "sprung")}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        read_checkpoint(tmp_path / "evil.ckpt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "evil.pkl")
    assert not (tmp_path / "sprung").exists()


def test_other_schemas_are_refused(copy: Path) -> None:
    rewrite(copy, schema=SCHEMA + 1)
    with pytest.raises(CheckpointError, match=f"schema {SCHEMA + 1}, this version of maqd reads schema {SCHEMA}; use"):
        read_checkpoint(copy)
    rewrite(copy, schema=0)
    with pytest.raises(CheckpointError, match="train again"):
        read_checkpoint(copy)


def test_unfit_headers_are_refused(copy: Path) -> None:
    rewrite(copy, shape={"in_channels": 1})
    with pytest.raises(CheckpointError, match="header"):
        read_checkpoint(copy)


def test_tensors_of_another_model_are_refused(copy: Path) -> None:
    tree = torch.load(copy, weights_only=True)
    tree[KEY]["config"]["model"]["width"] = 0.5
    torch.save(tree, copy)
    with pytest.raises(CheckpointError, match=r"belongs to another model: .* is \(.*\) there, \(.*\) here"):
        load_network(copy)


def test_resuming_from_a_damaged_file_says_so(config: TrainConfig, run: Silent) -> None:
    run(replace(config, epochs=1))
    last(config).write_bytes(last(config).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        run(config, resume=True)
