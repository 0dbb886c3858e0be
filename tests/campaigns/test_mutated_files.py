"""Every reader, fed with damaged files: each ends in a result or in the one error that it names, with the file's name.

`make campaigns` takes 10,000 files; the suite a few hundred. Seeds are fixed.
"""

import hashlib
import io
import json
import random
import struct
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from effort import MUTATIONS
from language_models import language_network
from mutations import mutated, mutated_tree
from PIL import Image
from small_runs import SMALL, Silent

from maqd.convert.state import load_state
from maqd.data import cache as data_cache
from maqd.data.arrays import ImageArrays
from maqd.data.tables import open_table
from maqd.errors import CheckpointError, ConfigError, DataError, EngineError, FormatError
from maqd.experiment import results
from maqd.export.onnx.integer import onnx_model
from maqd.graph import Graph, Weighted, container
from maqd.io.arrays import read_arrays
from maqd.io.images import read_image
from maqd.language import file as language
from maqd.lowering.language import lower_language
from maqd.plan import make_plan
from maqd.runtime import NativeEngine, NumpyEngine, inputs
from maqd.settings.phases import Phase, phases_to_plain, read_phases
from maqd.settings.training import TrainConfig
from maqd.settings.tree import from_plain, read_config, to_plain
from maqd.training.checkpoint import read_checkpoint
from maqd.training.metrics import loss_trend, read_metrics
from maqd.training.run_directory import RunDirectory
from maqd.training.runs import load_network, open_run

WORK = 3 * 10**5
"""Multiplications and elements of a graph that is run."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Something that reads files.

    Args:
        suffix: Of the files' names.
        files: Makes undamaged ones.
        read: Reads one, and uses what it gives.
        error: What it may raise.
        share: How many of 100 damaged files are for it.
        damaged: Makes a damaged file of a whole one.
        own: Whether it reads the whole ones.
    """

    suffix: str
    files: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    error: type[Exception]
    share: int
    damaged: Callable[[bytes, random.Random], bytes] = mutated
    own: bool = True


# ---- graphs ---------------------------------------------------------------------------------------------------------


def graph_files(folder: Path) -> list[bytes]:
    return [container.to_bytes(graphs.every_node(seed)) for seed in range(3)]


def canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def damaged_graph(data: bytes, chance: random.Random) -> bytes:
    """Another description with a digest that fits: hardly any other damage comes past the digest."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    document = json.loads(header.pop("__metadata__")["maqd"])
    document.pop("digest")
    if chance.random() < 0.2:
        header = mutated_tree(header, chance)
    elif chance.random() < 0.3:
        at = chance.randrange(len(body))
        body[at] = chance.randrange(256)
    else:
        document = mutated_tree(document, chance)
    return signed(header, bytes(body), document)


def signed(header: Any, body: bytes, document: Any) -> bytes:
    """A file by the words of docs/format.md, as far as its parts allow."""
    if isinstance(document, dict):
        digest = hashlib.sha256(canonical(document).encode())
        try:
            for name in sorted(header):
                entry = header[name]
                digest.update(canonical([name, entry["dtype"], entry["shape"]]).encode())
                digest.update(body[slice(*entry["data_offsets"])])
        except (TypeError, LookupError, AttributeError, ValueError):
            pass  # the header is damaged, and refused before the digest is looked at
        document = {**document, "digest": digest.hexdigest()}
    whole = {"__metadata__": {"maqd": canonical(document)}, **(header if isinstance(header, dict) else {})}
    text = json.dumps(whole, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def use_graph(path: Path) -> None:
    """Read a graph; if it is small, compare the native engine with NumPy's."""
    graph = container.load(path)
    str(graph).encode()
    work = sum(n.multiplications * graph.types[n.name].size for n in graph.nodes if isinstance(n, Weighted))
    if work + sum(kind.size for kind in graph.types.values()) > WORK:
        return
    compare(graph)


def compare(graph: Graph) -> None:
    if sum(stage.arena.size for stage in make_plan(graph).stages) > WORK:
        return
    given = inputs.random(graph, 2)
    expected = NumpyEngine(graph).run(*given)
    try:
        found = NativeEngine(graph).run(*given)
    except EngineError as error:
        assert "numpy engine" in str(error)  # noqa: PT017
        return
    if not isinstance(expected, dict):
        expected, found = {"": expected}, {"": found}
    for key, codes in expected.items():
        np.testing.assert_array_equal(found[key], codes)


# ---- runs -----------------------------------------------------------------------------------------------------------


@cache
def run_tree() -> dict[str, Any]:
    return yaml.safe_load(SMALL)


def config_files(folder: Path) -> list[bytes]:
    config = from_plain(TrainConfig, run_tree())
    return [SMALL.encode(), yaml.safe_dump(to_plain(config), sort_keys=False).encode()]


def damaged_config(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return mutated(data, chance)
    return yaml.safe_dump(mutated_tree(yaml.safe_load(data), chance)).encode(errors="surrogatepass")


def use_config(path: Path) -> None:
    read_config(path, TrainConfig)


def phases_files(folder: Path) -> list[bytes]:
    config = from_plain(TrainConfig, run_tree())
    phases = [Phase(name=name, config=config) for name in ("float", "last")]
    return [yaml.safe_dump(phases_to_plain(phases), sort_keys=False).encode()]


def float_network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def state_files(folder: Path) -> list[bytes]:
    buffer = io.BytesIO()
    torch.save({"state_dict": float_network().state_dict()}, buffer)
    return [buffer.getvalue()]


def damaged_state(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return mutated(data, chance)
    buffer = io.BytesIO()
    torch.save(mutated_tree(torch.load(io.BytesIO(data), weights_only=True), chance), buffer)
    return buffer.getvalue()


def use_state(path: Path) -> None:
    load_state(float_network(), path)


def checkpoint_files(folder: Path) -> list[bytes]:
    return [(a_run(folder) / "checkpoints" / "last.ckpt").read_bytes()]


def a_run(folder: Path) -> Path:
    """A finished run, made when it is first wanted."""
    path = folder / "run"
    if not path.exists():
        Silent()(from_plain(TrainConfig, {**run_tree(), "epochs": 1, "run": str(path)}))
    return path


def damaged_checkpoint(data: bytes, chance: random.Random) -> bytes:
    """Damaged bytes, which the checksums tell, or another tree of values and tensors."""
    if chance.random() < 0.4:
        return mutated(data, chance)
    tree = torch.load(io.BytesIO(data), weights_only=True)
    entry = chance.choice(("maqd", "maqd", "maqd", "state_dict", "top"))
    if entry == "top":
        tree = mutated_tree(tree, chance)
    else:
        tree[entry] = mutated_tree(tree[entry], chance)
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def metrics_files(folder: Path) -> list[bytes]:
    return [(a_run(folder) / "metrics.jsonl").read_bytes()]


def damaged_lines(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return mutated(data, chance)
    lines = data.splitlines()
    at = chance.randrange(len(lines))
    lines[at] = json.dumps(mutated_tree(json.loads(lines[at]), chance)).encode()
    return b"".join(line + b"\n" for line in lines)


def use_metrics(path: Path) -> None:
    run = path.parent
    RunDirectory(run).metrics.write_bytes(path.read_bytes())
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "last.ckpt").touch()
    RunDirectory(run).only_begun  # noqa: B018
    for entry in open_run(run).metrics:
        assert isinstance(entry["event"], str)
        assert isinstance(entry["step"], int)
    loss_trend(read_metrics(path))


def results_files(folder: Path) -> list[bytes]:
    path = folder / "results.jsonl"
    path.unlink(missing_ok=True)
    for seed in range(3):
        case = results.Case(network="vgg", schedule="short", method="maqd", weight_states=3, act_states=4)
        results.append(
            path,
            results.Row(
                case=case, seed=seed, images="test", correct=9, total=10, config=({"a": 1},), revision="r",
                versions={"python": "3"}, machine="m", seconds=1.5,
            ),
        )  # fmt: skip
    return [path.read_bytes()]


# ---- data -----------------------------------------------------------------------------------------------------------


def image_files(folder: Path) -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    found = []
    for kind, options in (
        ("PNG", {}), ("JPEG", {}), ("GIF", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PPM", {})
    ):  # fmt: skip
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


def use_image(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damage that it lives with
        read_image(path, (3, 8, 8), np.dtype(np.uint8), resize=True)


def array_files(folder: Path) -> list[bytes]:
    array = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    single, several, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(single, array)
    np.savez(several, a=array, b=array.astype(np.float32))
    np.savez_compressed(packed, a=array)
    return [single.getvalue(), several.getvalue(), packed.getvalue()]


def use_array(path: Path) -> None:
    # NumPy tells archives by their beginning, not by their name.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_arrays(path)


FINGERPRINT = "f"


def cache_files(folder: Path) -> list[bytes]:
    arrays = ImageArrays(images=np.zeros((4, 2, 2, 1), np.uint8), labels=np.array([0, 1, 0, 1]), class_names=("a", "b"))
    data_cache.write(folder / "set.cache", FINGERPRINT, (arrays, arrays))
    return [(folder / "set.cache").read_bytes()]


def table_files(folder: Path) -> list[bytes]:
    image = image_files(folder)[0]
    table = pa.table({"image": pa.array([{"bytes": image}] * 4), "label": pa.array([0, 1, 0, 1])})
    pq.write_table(table, folder / "set.parquet")
    return [(folder / "set.parquet").read_bytes()]


def language_files(folder: Path) -> list[bytes]:
    return [language.to_bytes(lower_language(language_network()))]


def onnx_files(folder: Path) -> list[bytes]:
    return [onnx_model(graphs.every_node()).SerializeToString()]


READERS = {
    "graphs": Reader(suffix=".maqd", files=graph_files, read=use_graph, error=FormatError, share=10),
    "graphs with a digest that fits": Reader(
        suffix=".maqd", files=graph_files, read=use_graph, error=FormatError, share=33, damaged=damaged_graph
    ),
    "ONNX files taken for graphs": Reader(
        suffix=".onnx", files=onnx_files, read=container.load, error=FormatError, share=2, own=False
    ),
    "configurations": Reader(
        suffix=".yaml", files=config_files, read=use_config, error=ConfigError, share=10, damaged=damaged_config
    ),
    "language models": Reader(
        suffix=".maqd", files=language_files, read=language.load, error=FormatError, share=4, damaged=damaged_graph
    ),
    "phases": Reader(
        suffix=".yaml", files=phases_files, read=read_phases, error=ConfigError, share=2, damaged=damaged_config
    ),
    "states of float networks": Reader(
        suffix=".pt", files=state_files, read=use_state, error=CheckpointError, share=2, damaged=damaged_state
    ),
    "tables": Reader(
        suffix=".parquet", files=table_files, read=lambda path: open_table([path]), error=DataError, share=2
    ),
    "checkpoints": Reader(
        suffix=".ckpt", files=checkpoint_files, read=read_checkpoint, error=CheckpointError, share=5,
        damaged=damaged_checkpoint,
    ),
    "networks of checkpoints": Reader(
        suffix=".ckpt", files=checkpoint_files, read=load_network, error=CheckpointError, share=5,
        damaged=damaged_checkpoint,
    ),
    "metrics": Reader(
        suffix=".jsonl", files=metrics_files, read=use_metrics, error=CheckpointError, share=5, damaged=damaged_lines
    ),
    "results": Reader(
        suffix=".jsonl", files=results_files, read=results.read, error=DataError, share=4, damaged=damaged_lines
    ),
    "images": Reader(suffix=".png", files=image_files, read=use_image, error=DataError, share=7),
    "arrays": Reader(suffix=".npy", files=array_files, read=use_array, error=DataError, share=6),
    "caches of data sets": Reader(
        suffix=".cache", files=cache_files, read=lambda path: data_cache.read(path, FINGERPRINT), error=DataError,
        share=3,
    ),
}  # fmt: skip


def test_the_shares_make_a_whole():
    assert sum(reader.share for reader in READERS.values()) == 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("readers")  # noqa: PT022


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_ends_in_a_result_or_one_error(name: str, folder: Path, tmp_path: Path):
    reader = READERS[name]
    files = reader.files(folder)
    assert files, "there is nothing to damage"
    path = tmp_path / f"damaged{reader.suffix}"
    for data in files:
        path.write_bytes(data)
        if reader.own:
            reader.read(path)  # undamaged ones are read
    chance = random.Random(name)
    faults: dict[str, str] = {}  # the first file of each kind
    for number in range(max(10, MUTATIONS * reader.share // 100)):
        path.write_bytes(reader.damaged(chance.choice(files), chance))
        try:
            reader.read(path)
        except Exception as error:
            named = tmp_path.name in str(error) and isinstance(error, reader.error)
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {place.filename}:{place.lineno}"
            if named or kind in faults:
                continue
            kept = Path("build") / f"damaged-{name.replace(' ', '-')}-{number}{reader.suffix}"
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(path.read_bytes())
            faults[kind] = f"{kept}: {kind}: {error}"[:500]
    assert not faults, "\n".join(faults.values())
