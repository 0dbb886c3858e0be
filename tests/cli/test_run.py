"""`maqd run` on what is no image and has no classes: vectors, windows, 16 bits, several inputs and outputs."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from maqd import States
from maqd.cli import main
from maqd.graph import Storage, container
from maqd.lowering import lower
from maqd.nn import IntegerInput, LayerBatchNorm, NormActivation, QuantConv2d, Quantizer, QuantLinear
from maqd.numerics.states import Grid
from maqd.runtime import NumpyEngine

FOUR = Quantizer(states=States(count=4, signed=False), step=1.0)
FINE = Grid(low=-127, high=127, exponent=-6)
DEEP = Grid(low=-32768, high=32767, exponent=-15)


class Pair(nn.Module):
    """Float vectors beside 8-bit ones; a long output and a short one."""

    def __init__(self) -> None:
        super().__init__()
        self.windows, self.bytes = IntegerInput(FINE, Storage.F32), IntegerInput(FINE, Storage.I8)
        self.left = QuantLinear(6, 20, states=3, input_grid=FINE)
        self.right = QuantLinear(5, 4, states=3, input_grid=FINE)
        self.norm = NormActivation(LayerBatchNorm(4), FOUR)
        self.head = QuantLinear(4, 2, states=3, input_grid=FOUR.grid)

    def forward(self, window: Tensor, code: Tensor) -> dict[str, Tensor]:
        return {"long": self.left(self.windows(window)), "short": self.head(self.norm(self.right(self.bytes(code))))}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = Pair()
    network.windows.fit([torch.randn(50, 6)])
    path = tmp_path_factory.mktemp("pair") / "pair.maqd"
    example = (torch.zeros(1, 6), torch.zeros(1, 5, dtype=torch.int8))
    container.save(lower(network.eval(), example).graph, path)
    return path


class Deep(nn.Module):
    """Grey images of 16 bits to three values."""

    def __init__(self) -> None:
        super().__init__()
        self.input = IntegerInput(DEEP, Storage.U16, zero=32768)
        self.conv = QuantConv2d(1, 3, 4, states=3, input_grid=DEEP)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.input(x)).flatten(1)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("deep") / "deep.maqd"
    container.save(lower(Deep().eval(), torch.zeros(1, 1, 4, 4, dtype=torch.uint16)).graph, path)
    return path


@pytest.fixture
def given() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "window": generator.normal(size=(130, 6)),
        "code": generator.integers(-127, 128, (130, 5)).astype(np.int8),
    }


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def call(*arguments: object) -> Any:
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*arguments: object) -> str:
        assert main([*map(str, arguments)]) in (1, 2)
        return capsys.readouterr().err

    return call


def test_inputs_by_name_become_outputs_by_name(pair: Path, given: dict[str, np.ndarray], tmp_path: Path, read: Any):
    engine = NumpyEngine(container.load(pair))
    codes, scores = engine.run(given), engine.scores(given)
    np.save(tmp_path / "window.npy", given["window"])
    np.savez(tmp_path / "code.npz", anything=given["code"])
    np.savez(tmp_path / "both.npz", **given)
    ways = (
        ["--input", f"window={tmp_path / 'window.npy'}", "--input", f"code={tmp_path / 'code.npz'}"],
        ["--input", str(tmp_path / "both.npz")],
        ["--input", f"code={tmp_path / 'both.npz'}", "--input", f"window={tmp_path / 'both.npz'}"],
    )
    for number, way in enumerate(ways):
        out = tmp_path / f"{number}.npz"
        found = read("run", pair, *way, "-o", out)
        with np.load(out) as written:
            assert set(written.files) == {"long.codes", "long.scores", "short.codes", "short.scores"}
            for key in ("long", "short"):
                np.testing.assert_array_equal(written[f"{key}.codes"], codes[key], strict=True)
                np.testing.assert_array_equal(written[f"{key}.scores"], scores[key], strict=True)
        last = found["samples"][-1]
        assert (last["sample"], last["outputs"]["short"]["codes"]) == ("129", codes["short"][-1].tolist())
        assert last["outputs"]["long"]["scores"] == scores["long"][-1].tolist()


def test_short_outputs_are_printed_and_long_ones_as_a_range(
    pair: Path, given: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    np.savez(tmp_path / "one.npz", **{key: values[3] for key, values in given.items()})
    codes = NumpyEngine(container.load(pair)).run(given)
    assert main(["run", str(pair), "--input", str(tmp_path / "one.npz")]) == 0
    long, short = (block.split("\n")[1] for block in capsys.readouterr().out.split("sample")[1:])
    assert f"20 from {codes['long'][3].min()} to {codes['long'][3].max()}" in long
    assert " ".join(map(str, codes["short"][3])) in short
    assert main(["run", str(pair), "--input", str(tmp_path / "one.npz"), "--top", "1"]) == 0
    assert f"0       {codes['short'][3].argmax()}" in capsys.readouterr().out.split("sample")[2]


def test_inputs_that_do_not_fit_are_named(pair: Path, given: dict[str, np.ndarray], tmp_path: Path, fails: Any):
    np.savez(tmp_path / "both.npz", **given)
    np.savez(tmp_path / "more.npz", **given, third=given["code"])
    np.savez(tmp_path / "uneven.npz", window=given["window"], code=given["code"][:7])
    np.savez(tmp_path / "wide.npz", **{**given, "code": given["code"].astype(np.int64)})
    np.savez(tmp_path / "none.npz", **{key: values[:0] for key, values in given.items()})
    np.savez(tmp_path / "objects.npz", window=np.array([{}]))
    np.savez(tmp_path / "unknown.npz", first=given["code"], second=given["code"])
    np.save(tmp_path / "window.npy", given["window"])
    both, window = tmp_path / "both.npz", tmp_path / "window.npy"
    assert "inputs window, code, got 'third'" in fails("run", pair, "--input", tmp_path / "more.npz")
    assert "same number of samples, got 130 of window, 7 of code" in fails(
        "run", pair, "--input", tmp_path / "uneven.npz"
    )
    assert "wide.npz: the network takes a int8 array of shape N x 5" in fails(
        "run", pair, "--input", tmp_path / "wide.npz"
    )
    assert "none.npz holds no samples" in fails("run", pair, "--input", tmp_path / "none.npz")
    assert "objects.npz cannot be read as arrays" in fails("run", pair, "--input", tmp_path / "objects.npz")
    assert "--input code=FILE" in fails("run", pair, "--input", f"window={window}")
    assert "'window' is given twice" in fails("run", pair, "--input", both, "--input", f"window={window}")
    assert "has no array 'code', only first, second" in fails(
        "run", pair, "--input", f"code={tmp_path / 'unknown.npz'}"
    )
    assert "one input is wanted" in fails("run", pair, window)
    assert "is the input itself" in fails("run", pair, "--input", both, "-o", both)


def test_images_of_16_bits_are_read_exactly(deep: Path, tmp_path: Path, read: Any):
    pixels = np.random.default_rng(0).integers(0, 65536, (4, 4), dtype=np.uint16)
    pixels[0, :3] = 0, 32768, 65535
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    np.save(tmp_path / "deep.npy", pixels[None])
    wanted = NumpyEngine(container.load(deep)).run(pixels[None])
    for name in ("deep.png", "deep.npy"):
        assert read("run", deep, tmp_path / name)["samples"][0]["outputs"]["output"]["codes"] == wanted.tolist()


def test_bits_that_do_not_fit_are_refused(deep: Path, pair: Path, tmp_path: Path, fails: Any):
    # Pillow reads 16-bit colours as 8-bit ones and says nothing.
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(bytes(1) + bytes(range(24)) for _ in range(4))
    colour = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    (tmp_path / "colour.png").write_bytes(colour + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    Image.new("L", (4, 4)).save(tmp_path / "byte.png")
    for name, got in (("colour.png", "got 16 bits, of which mode RGB keeps 8"), ("byte.png", "got mode L")):
        assert f"{name}: the image must be grey with 16 bits, {got}" in fails("run", deep, tmp_path / name)
    assert "the network takes int8 arrays of 5, no images" in fails(
        "run", pair, "--input", f"code={tmp_path / 'byte.png'}"
    )
