"""Outputs replace nothing but files of their own kind, and are refused before the work begins."""

import ast
import errno
import io
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

import maqd
from maqd.errors import OutputError
from maqd.io.files import write_atomically, write_directory
from maqd.io.outputs import GENERATOR, Artefact, check_output, make_directory, recognize
from maqd.io.pictures import save_png


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: np.zeros(2) for name in names}
    np.savez(file, **arrays)
    return file.getvalue()


def picture(**metadata: str) -> bytes:
    text = PngImagePlugin.PngInfo()
    for key, value in metadata.items():
        text.add_text(key, value)
    file = io.BytesIO()
    Image.new("L", (2, 2)).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def hdf5(generator: str | None, *groups: str) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        if generator is not None:
            made.attrs["generator"] = generator
        for group in groups:
            made.create_group(group)
    return file.getvalue()


FILES = {
    Artefact.GRAPH: (300).to_bytes(8, "little") + b'{"__metadata__":{"maqd":"{}"}}',
    Artefact.TENSORS: (300).to_bytes(8, "little") + b'{"__metadata__":{"format":"pt"},"w":{}}',
    Artefact.PAGE: f'<!doctype html><html lang="en"><head><meta charset="utf-8">{GENERATOR}<title>'.encode(),
    Artefact.ONNX: b"\x08\x0a\x12\x04maqd",
    Artefact.PICTURE: picture(Software="maqd"),
    Artefact.CHECKPOINT: b"PK\x03\x04rest of a zip file",
    Artefact.GGUF: b"GGUF" + bytes(20) + b"\x14general.architecture\x05llama\x0cmaqd.version\x030.1",
    Artefact.NIR: hdf5("maqd", "node"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_are_recognized_and_replaced_by_their_own_kind_only(kind: Artefact, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES[kind])
    assert recognize(FILES[kind]) is (Artefact.HDF5 if kind is Artefact.NIR else kind)
    check_output(path, kind)
    if kind is Artefact.NIR:
        with pytest.raises(OutputError, match=r"is an HDF5 file, and a \.maqd file would replace it"):
            check_output(path, Artefact.GRAPH)
        return
    for other in FILES.keys() - {kind}:
        with pytest.raises(OutputError, match=f"is {kind.value}, and {other.value} would replace it"):
            check_output(path, other)


STRANGERS = [
    (Artefact.ONNX, b"\x08\x08\x12\x07pytorch\x1a\x05"),
    (Artefact.ONNX, b"\x08\x08\x12\x05maqdx"),
    (Artefact.PICTURE, picture()),
    (Artefact.PICTURE, picture(Software="Matplotlib version 3.11, https://matplotlib.org/")),
    (Artefact.PICTURE, picture(Comment="maqd")),
    (Artefact.GGUF, b"GGUF" + bytes(20) + b"\x14general.architecture\x05llama\x0cgeneral.name"),
    (Artefact.NIR, hdf5(None, "node")),
    (Artefact.NIR, hdf5("keras", "node")),
    (Artefact.NIR, hdf5("maqd", "weights")),
    (Artefact.NIR, b"\x89HDF\r\n\x1a\n" + bytes(90)),
    (Artefact.ARRAYS, archive("images", "labels")),
    (Artefact.ARRAYS, archive("y.codes", "y.scores", "mine")),
    (Artefact.ARRAYS, archive("y.codes")),
    (Artefact.ARRAYS, b"PK\x03\x04rest of a zip file"),
]
"""Files that other programs wrote, of kinds that maqd writes too."""


@pytest.mark.parametrize(("kind", "content"), STRANGERS)
def test_files_of_the_kind_that_somebody_else_wrote_are_never_replaced(
    kind: Artefact, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "file.npz"
    path.write_bytes(content)
    with pytest.raises(
        OutputError, match=r"that maqd did not write, and .* would replace it; name another or remove it"
    ):
        check_output(path, kind)
    assert path.read_bytes() == content


def test_what_is_written_may_be_written_again(tmp_path: Path) -> None:
    figure = Figure()
    FigureCanvasAgg(figure)
    save_png(tmp_path / "picture", figure)
    check_output(tmp_path / "picture", Artefact.PICTURE)
    (tmp_path / "a.npz").write_bytes(archive("y.codes", "y.scores", "z.codes", "z.scores"))
    check_output(tmp_path / "a.npz", Artefact.ARRAYS)


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


WRITERS = {
    "io/files.py",  # whole or not at all
    "io/pictures.py", "experiment/table.py",  # into memory first
    "experiment/lines.py", "training/metrics.py",  # lines added to a file
    "bench/avr.py", "bench/cmsis.py", "bench/microcontroller.py", "bench/qemu.py", "runtime/c99.py",  # in a directory
    "runtime/sinabs_worker.py",  # for temporary files
}  # fmt: skip
"""Modules that may write files themselves."""


def test_files_are_written_in_one_place() -> None:
    source = Path(maqd.__path__[0])
    found = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            modes = [
                one.value
                for one in [*node.args, *(word.value for word in node.keywords)]
                if isinstance(one, ast.Constant)
            ]
            opened = name in ("open", "fdopen") and any(
                isinstance(mode, str) and set(mode) & set("wax+") for mode in modes
            )
            if opened or name in ("write_text", "write_bytes", "savefig", "savez", "tofile"):
                found.add(str(path.relative_to(source)))
    assert found - {"cli/run.py"} <= WRITERS  # which saves arrays into memory


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
