"""Outputs replace nothing but files of their own kind, and are refused before the work begins."""

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from maqd.errors import OutputError
from maqd.io.files import write_atomically, write_directory
from maqd.io.outputs import GENERATOR, Artefact, check_output, make_directory, recognize

FILES = {
    Artefact.GRAPH: (300).to_bytes(8, "little") + b'{"__metadata__":{"maqd":"{}"}}',
    Artefact.TENSORS: (300).to_bytes(8, "little") + b'{"__metadata__":{"format":"pt"},"w":{}}',
    Artefact.PAGE: f'<!doctype html><html lang="en"><head><meta charset="utf-8">{GENERATOR}<title>'.encode(),
    Artefact.ONNX: b"\x08\x0a\x12\x04maqd",
    Artefact.PICTURE: b"\x89PNG\r\n\x1a\n0000",
    Artefact.CHECKPOINT: b"PK\x03\x04rest of a zip file",
}


@pytest.mark.parametrize("kind", FILES)
def test_files_are_recognized_and_replaced_by_their_own_kind_only(kind: Artefact, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES[kind])
    assert recognize(FILES[kind]) is kind
    check_output(path, kind)
    for other in FILES.keys() - {kind}:
        with pytest.raises(OutputError, match=f"is {kind.value}, and {other.value} would replace it"):
            check_output(path, other)


@pytest.mark.parametrize("content", [b"text", b"{}", b"\x00" * 20, b"\x08", b"epochs: 3\n", b"<!doctype html><html>"])
def test_other_files_are_never_replaced(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert recognize(content) is None
    for kind in FILES:
        with pytest.raises(OutputError, match="another kind of file"):
            check_output(tmp_path / "file", kind)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_the_input_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(FILES[Artefact.GRAPH])
    (tmp_path / "link").symlink_to("m")
    for path in (tmp_path / "m", tmp_path / "link", tmp_path / "." / "m"):
        with pytest.raises(OutputError, match="is the input itself"):
            check_output(path, Artefact.GRAPH, inputs=[tmp_path / "m"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "is a directory; name an ONNX file in it"),
        ("..", "is a directory"),
        ("folder", "is a directory"),
        ("missing/m", "does not exist; make it first"),
        ("empty/m", "which is a file"),
        ("/proc/m", "cannot be written"),
        ("/dev/null", "is no regular file"),
        ("n" * 300, "File name too long"),
    ],
)
def test_places_where_nothing_can_be_written(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("empty").write_bytes(b"")
    with pytest.raises(OutputError, match=message):
        check_output(Path(name), Artefact.ONNX)
    check_output(Path("empty"), Artefact.ONNX)


def test_programs_go_to_new_or_empty_directories(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        check_output(tmp_path / name, Artefact.PROGRAM)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path):
        with pytest.raises(OutputError, match="empty or a new directory"):
            check_output(path, Artefact.PROGRAM)


def test_names_as_long_as_systems_take_are_written(tmp_path: Path) -> None:
    name = "\N{GRINNING FACE}" * 63  # 252 of 255 bytes
    check_output(tmp_path / name, Artefact.GRAPH)
    write_atomically(tmp_path / name, [b"whole"])
    assert (tmp_path / name).read_bytes() == b"whole"
    write_directory(tmp_path / name[1:], {"a": b"b"})
    assert sorted(tmp_path.iterdir()) == [tmp_path / name[1:], tmp_path / name]


def test_a_directory_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = os.fsync

    def on_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")  # what network file systems say
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", on_files)
    write_atomically(tmp_path / "file", [b"whole"])
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_a_full_disk_is_called_one_wherever_it_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        check_output(tmp_path / "m", Artefact.GRAPH)
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        make_directory(tmp_path / "new")
