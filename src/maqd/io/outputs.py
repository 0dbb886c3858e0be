"""Kinds of files, and outputs that are checked before the work, so that nothing is lost and no work is wasted.

A file is replaced only if it is of the same kind and says of itself that this package wrote it: an ONNX file, a picture
or an archive from elsewhere stays.
"""

import enum
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from maqd.errors import OutputError, advice
from maqd.optional import require


class Artefact(enum.Enum):
    """What a command writes; the value is what messages call it."""

    GRAPH = "a .maqd file"
    ONNX = "an ONNX file"
    NIR = "a NIR file"
    HDF5 = "an HDF5 file"
    """What a NIR file is as well; so are those of many other programs."""
    GGUF = "a GGUF file"
    PICTURE = "a PNG picture"
    ARRAYS = "a NumPy archive"
    PROGRAM = "a directory with a C program"
    CHECKPOINT = "a checkpoint"
    PAGE = "a page of maqd report"
    TENSORS = "a file of tensors"
    """safetensors, as a .maqd file, but with something else in it."""
    OPTIONS = "a file of options"


BEGINNING = 600
"""Bytes of a file that tell what it is."""

NAME = "maqd"
"""What files call the program that wrote them, each in its own way."""

GGUF_KEY = "maqd.version"
"""The key of a GGUF file that says so."""

COMMENT = "# Written by maqd"
"""How a text file begins that says so."""

GENERATOR = '<meta name="generator" content="maqd">'
"""What a page says of itself: those of others are not replaced."""


OPTIONS = b"# Options for maqd train --config, written by maqd mix.\n"
"""First line of a file of options: those that others wrote are not replaced."""


def recognize(start: bytes, suffix: str = "") -> Artefact | None:
    """The kind of a file from its first bytes, 16 or more; None for any other.

    Args:
        start: The bytes.
        suffix: Of the file's name; tells archives from checkpoints, which both are zip files.
    """
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return Artefact.PICTURE
    if start[:15].lower() == b"<!doctype html>" and GENERATOR.encode() in start:
        return Artefact.PAGE
    if start.startswith(OPTIONS):
        return Artefact.OPTIONS
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return Artefact.HDF5
    if start.startswith(b"GGUF"):
        return Artefact.GGUF
    if start.startswith(b"PK\x03\x04"):
        return Artefact.ARRAYS if suffix == ".npz" else Artefact.CHECKPOINT
    # safetensors: the size of the header in eight bytes, little-endian, and the header, which is JSON.
    if len(start) > 8 and start[8:9] == b"{" and start[5:8] == bytes(3):
        return Artefact.GRAPH if start[8:].startswith(b'{"__metadata__":{"maqd":') else Artefact.TENSORS
    # ONNX: field 1 of the protocol buffer, the version of the format.
    if len(start) > 2 and start[0] == 8 and 3 <= start[1] < 64:
        return Artefact.ONNX
    return None


def check_output(path: Path, kind: Artefact, *, inputs: Iterable[Path] = ()) -> None:
    """Check that an artefact can be written, and that it replaces nothing but another of its kind that maqd wrote.

    Args:
        path: Where to; of a program a directory that is new or empty.
        kind: What.
        inputs: Files and directories that the command reads.

    Raises:
        OutputError: It cannot be written, or would replace something else.
    """
    if path.name in ("", ".."):
        raise OutputError(f"the output {path} is a directory; name {kind.value} in it, such as {path / 'NAME'}")
    try:
        _check(path, kind, inputs)
    except OSError as error:
        remedy = advice(error, "name another file")
        raise OutputError(f"the output {path} cannot be written: {error.strerror}; {remedy}") from error


def _check(path: Path, kind: Artefact, inputs: Iterable[Path]) -> None:
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(f"the output {path} is the input itself; name another file")
    _check_directory(path)
    if kind is Artefact.PROGRAM:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(f"the output {path} must be an empty or a new directory; remove it or name another")
        return
    if not path.exists():
        if path.is_symlink():
            raise OutputError(f"the output {path} is a link to nothing; remove it or name another file")
        return
    if path.is_dir():
        raise OutputError(f"the output {path} is a directory; name {kind.value} in it, such as {path / 'NAME'}")
    if not stat.S_ISREG(path.stat().st_mode):
        raise OutputError(f"the output {path} is no regular file; name a file")
    with path.open("rb") as file:
        start = file.read(BEGINNING)
    if not start:
        return
    found = recognize(start, path.suffix)
    what = "another kind of file" if found is None else found.value
    if found is not (Artefact.HDF5 if kind is Artefact.NIR else kind):
        raise OutputError(f"the output {path} is {what}, and {kind.value} would replace it; name another or remove it")
    if not OWN.get(kind, _recognized)(path, start):
        raise OutputError(
            f"the output {path} is {what} that maqd did not write, and {kind.value} would replace it; name "
            "another or remove it"
        )


def _recognized(path: Path, start: bytes) -> bool:
    """The first bytes say it already: no other program writes these kinds."""
    return True


def _own_onnx(path: Path, start: bytes) -> bool:
    """Field 2 of the protocol buffer, behind the version: the producer's name."""
    return start[2:].startswith(b"\x12" + bytes([len(NAME)]) + NAME.encode())


def _own_picture(path: Path, start: bytes) -> bool:
    """The text of a PNG that names the software."""
    return f"tEXtSoftware\0{NAME}".encode() in start


def _own_gguf(path: Path, start: bytes) -> bool:
    """One of the first keys."""
    return GGUF_KEY.encode() in start


def _own_nir(path: Path, start: bytes) -> bool:
    """An attribute of the file, and a network in it."""
    try:
        with require("h5py", "replacing a NIR file").File(path, "r") as file:
            return file.attrs.get("generator") == NAME and "node" in file
    except OSError:  # damaged
        return False


def _own_arrays(path: Path, start: bytes) -> bool:
    """Codes and scores of each output, and nothing else."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    keys = {name.removesuffix(".codes.npy") for name in names if name.endswith(".codes.npy")}
    return sorted(names) == sorted(f"{key}.{what}.npy" for key in keys for what in ("codes", "scores"))


OWN: Mapping[Artefact, Callable[[Path, bytes], bool]] = {
    Artefact.ONNX: _own_onnx,
    Artefact.PICTURE: _own_picture,
    Artefact.GGUF: _own_gguf,
    Artefact.NIR: _own_nir,
    Artefact.ARRAYS: _own_arrays,
}
"""How files of kinds that others write as well say that maqd wrote them; takes the path and how the file begins."""


def make_directory(path: Path) -> None:
    """Make a directory and those above it, where they are missing.

    Raises:
        OutputError: It cannot be made, or a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path} cannot be a directory: a file is in the way; name another one") from error
    except OSError as error:
        remedy = advice(error, "name another one")
        raise OutputError(f"the directory {path} cannot be made: {error.strerror}; {remedy}") from error


def _check_directory(path: Path) -> None:
    """Whether a new file can appear beside `path`: files are replaced, not written over."""
    parent = path.parent
    if not parent.exists():
        raise OutputError(f"the output {path} needs the directory {parent}, which does not exist; make it first")
    if not parent.is_dir():
        raise OutputError(f"the output {path} needs the directory {parent}, which is a file; name another")
    with tempfile.TemporaryFile(dir=parent):  # permissions alone do not tell: the file system may be read-only
        pass
