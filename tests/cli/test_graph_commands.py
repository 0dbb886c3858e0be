"""`maqd lower`, `verify`, `run`, `info` and `export`, on a digits run."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import maqd
from maqd.cli import main
from maqd.export.c99 import export_c99
from maqd.graph import Graph, Thresholds, container
from maqd.models import Architecture, ModelConfig
from maqd.nn import Norm, QuantConfig
from maqd.optional import remedy
from maqd.runtime import ENGINES
from maqd.settings.training import ComputeConfig, TrainConfig
from maqd.training.checkpoint import KEY, read_checkpoint, write_run_file
from maqd.training.progress import Output
from maqd.training.runs import load_network, open_run
from maqd.training.train import train

Json = Callable[..., Any]


def digits_run(directory: Path, **quant: Any) -> Path:
    """A short training on the digits."""
    config = TrainConfig(
        run=str(directory),
        epochs=1,
        model=ModelConfig(architecture=Architecture.DIGITS, width=0.5, quant=QuantConfig(**quant)),
        compute=ComputeConfig(threads=1),
    )
    train(config, output=Output(silent=True))
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_run(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def graph(run: Path) -> Path:
    path = run.parent / "digits.maqd"
    assert main(["lower", str(run), "-o", str(path)]) == 0
    return path


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Json:
    """Runs a command with --json; its object."""

    def call(*arguments: object, status: int = 0) -> Any:
        assert main([*map(str, arguments), "--json"]) == status
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        return json.loads(out)

    return call


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that fails; its one line on standard error."""

    def call(*arguments: object, status: int = 1) -> str:
        assert main([*map(str, arguments)]) == status
        captured = capsys.readouterr()
        assert captured.err.startswith("maqd: error: ")
        assert captured.err.count("\n") == 1
        return captured.err

    return call


# ---- lower ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["auto", "thresholds", "fixed-point"])
def test_lower(run: Path, tmp_path: Path, read: Json, form: str) -> None:
    found = read("lower", run, "-o", tmp_path / "m.maqd", "--affine", form)
    assert found["bytes"] == (tmp_path / "m.maqd").stat().st_size
    assert found["float_weight_bytes"] == 4 * found["weights"]
    assert [report["name"] for report in found["activations"]] == ["stem.act", "features.0.act", "features.1.act"]
    for report in found["activations"]:
        assert report["mismatches"] == 0
        assert report["checked"] > 1000
        assert report["operation"] == ("fixed_point" if form == "fixed-point" else "thresholds")
        assert (report["shift"] is None) == (form == "thresholds")
    lowered = container.load(tmp_path / "m.maqd")
    assert lowered.labels("output") == tuple(map(str, range(10)))


def test_lower_names_the_float_accuracy_the_licence_and_the_options(
    run: Path, tmp_path: Path, read: Json, fails: Callable[..., str]
) -> None:
    floats = digits_run(tmp_path / "float", weight_states=None, act_states=None)
    file = tmp_path / "m.maqd"
    read("lower", run, "-o", file, "--float", floats, "--licence", "CC0-1.0", "--note", "revision 7")
    known = container.load(file).metadata
    assert known.float_accuracy == open_run(floats).header.evaluation.accuracy  # pyright: ignore[reportOptionalMemberAccess]
    assert known.licence == "CC0-1.0"
    assert re.fullmatch(r"maqd [\w.]+, \d+ steps; .*epochs=1.*; revision 7", known.provenance)
    assert str(tmp_path.parent) not in known.provenance
    assert "is no float run: it has 3 weight states" in fails("lower", run, "-o", file, "--float", run)


def test_lower_prints_a_table(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lower", str(run), "-o", str(tmp_path / "m.maqd")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "activation"
    assert lines[1].startswith("stem.act")
    assert "bytes of information" in lines[-1]


def test_lowering_is_deterministic(run: Path, graph: Path, tmp_path: Path) -> None:
    assert main(["lower", str(run), "-o", str(tmp_path / "m.maqd")]) == 0
    assert (tmp_path / "m.maqd").read_bytes() == graph.read_bytes()


@pytest.mark.parametrize("schema", [1, 2])
def test_runs_of_older_schemas_lower_as_well(schema: int, run: Path, tmp_path: Path) -> None:
    tree = dict(read_checkpoint(run / "checkpoints" / "last.ckpt").tree)
    entries = dict(tree[KEY])
    info = dict(entries.pop("data"))
    channels, size, _ = info.pop("inputs")[0]["shape"]
    shape = {"in_channels": channels, "image_size": size}
    old = {"shape": {**shape, "num_classes": 10}} if schema == 1 else {"data": {**shape, **info}}
    (tmp_path / "old" / "checkpoints").mkdir(parents=True)
    buffer = io.BytesIO()
    torch.save({**tree, KEY: {**entries, **old, "schema": schema}}, buffer)
    write_run_file(tmp_path / "old" / "checkpoints" / "last.ckpt", buffer.getvalue())
    assert main(["lower", str(tmp_path / "old"), "-o", str(tmp_path / "m.maqd")]) == 0
    assert container.load(tmp_path / "m.maqd").labels("output") == (() if schema == 1 else tuple("0123456789"))


def test_lower_refuses(run: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "--output" in fails("lower", run, status=2)
    assert "unknown option '--afine'; did you mean '--affine'?" in fails(
        "lower", run, "-o", "m", "--afine", 1, status=2
    )
    assert "invalid choice: 'float'" in fails("lower", run, "-o", "m", "--affine", "float", status=2)
    assert "does not exist" in fails("lower", tmp_path / "nothing", "-o", tmp_path / "m")
    assert "does not exist; make it first" in fails("lower", run, "-o", tmp_path / "nowhere" / "m.maqd")
    assert not (tmp_path / "m.maqd").exists()


def test_refusals_are_listed_one_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ln = digits_run(tmp_path / "ln", norm=Norm.LN)
    capsys.readouterr()
    assert main(["lower", str(ln), "-o", str(tmp_path / "m.maqd")]) == 1
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "maqd: error: 3 calls have no exact integer form:"
    assert [line.partition(":")[0] for line in others] == ["  stem.act", "  features.0.act", "  features.1.act"]


# ---- verify ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm"))),
    reason="needs Debian's packages gcc-arm-none-eabi and qemu-system-arm",
)
def test_emulated_programs_take_the_runs_images(run: Path, graph: Path, read: Json) -> None:
    """Instructions follow the density of activations, and the run's images have another one than random pixels."""
    taken = [read("bench", graph, "--target", "cortex-m4", *more) for more in ((), ("--against", run))]
    assert taken[0]["instructions"] != taken[1]["instructions"]
    assert taken[0]["flash"] == taken[1]["flash"]


def test_verify_against_the_run(run: Path, graph: Path, read: Json) -> None:
    found = read("verify", graph, "--against", run)
    assert found["ok"]
    assert found["samples"] == 360
    assert [engine["name"] for engine in found["engines"]] == ["pytorch", "numpy", "native", "onnxruntime"]
    assert {engine["different"] for engine in found["engines"]} == {0}
    assert {engine["tensors"] for engine in found["engines"]} == {12}


def test_verify_the_c_program(run: Path, graph: Path, read: Json) -> None:
    found = read("verify", graph, "--against", run, "--engines", "c99", "--images", 100)
    pytorch, program = found["engines"]
    assert (program["name"], program["different"]) == ("c99", 0)
    # Not the input and the flattened tensor; and the first layer's sums are quantized as they are computed.
    assert program["tensors"] == pytorch["tensors"] - 3


def test_verify_on_random_images(graph: Path, read: Json, capsys: pytest.CaptureFixture[str]) -> None:
    found = read("verify", graph, "--engines", "onnxruntime", "--images", 60)
    assert (found["ok"], found["samples"], found["random"]) == (True, 60, True)
    assert [engine["name"] for engine in found["engines"]] == ["onnxruntime"]
    assert main(["verify", str(graph), "--images", "5"]) == 0
    assert "5 random samples: all integers are the same" in capsys.readouterr().out


def tampered(graph: Path, path: Path) -> int:
    """The graph with another threshold in channel 3 of features.0.act; the number of the channel."""
    nodes = []
    for node in container.load(graph).nodes:
        if node.name == "features.0.act":
            assert isinstance(node, Thresholds)
            cuts = node.thresholds.astype(np.int16)
            cuts[0, 3] -= 5
            node = replace(node, thresholds=cuts)  # noqa: PLW2901
        nodes.append(node)
    container.save(Graph(nodes=tuple(nodes)), path)
    return 3


def test_verify_names_the_first_difference(run: Path, graph: Path, tmp_path: Path, read: Json, capsys: Any) -> None:
    channel = tampered(graph, tmp_path / "m.maqd")
    found = read("verify", tmp_path / "m.maqd", "--against", run, "--images", 100, status=1)
    assert not found["ok"]
    pytorch, *others = found["engines"]
    assert [engine["different"] for engine in others] == [0, 0, 0]
    first = pytorch["first"]
    assert (first["tensor"], first["index"][0]) == ("features.0.act", channel)
    assert abs(first["got"] - first["expected"]) == 1
    assert main(["verify", str(tmp_path / "m.maqd"), "--against", str(run), "--images", "100"]) == 1
    out = capsys.readouterr().out
    assert "pytorch: first difference in features.0.act, channel 3 at (" in out
    assert f"sample {first['sample']}: {first['got']} instead of {first['expected']}" in out
    assert f"the graph may be of another run or checkpoint; lower it again: maqd lower {run} -o FILE" in out
    assert "100 test images: NOT the same integers" in out


def test_verify_refuses(run: Path, graph: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert f"--engines must be of {', '.join(ENGINES)}, got 'cuda'" in fails(
        "verify", graph, "--engines", "cuda", status=2
    )
    assert "--images must be at least 1" in fails("verify", graph, "--images", 0, status=2)
    assert "belongs to --against RUN" in fails("verify", graph, "--data.path", "x", status=2)
    assert "unknown option" in fails("verify", graph, "--against", run, "--data.pth", "x", status=2)
    (tmp_path / "bad.maqd").write_bytes(graph.read_bytes()[:-1])
    assert "bad.maqd: its tensors end at byte" in fails("verify", tmp_path / "bad.maqd")
    assert "cannot be read" in fails("verify", tmp_path / "missing.maqd")


# ---- run ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def digit(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A PNG file of 8 x 8 grey pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    return tmp_path / "digit.png", pixels


def test_run(graph: Path, digit: tuple[Path, np.ndarray], read: Json, capsys: pytest.CaptureFixture[str]) -> None:
    path, pixels = digit
    logits = maqd.load(graph).run(pixels[None, None])[0]
    assert logits.dtype == np.int32
    exponent = container.load(graph).types["output"].exponent
    for engine in ("numpy", "onnxruntime"):
        found = read("run", graph, path, path, "--engine", engine)
        assert [entry["sample"] for entry in found["samples"]] == [str(path)] * 2
        classes = found["samples"][1]["outputs"]["output"]["classes"]
        assert [entry["logit"] for entry in classes] == sorted(logits.tolist(), reverse=True)[:5]
        assert classes[0]["label"] == str(int(logits.argmax()))
        assert classes[0]["score"] == classes[0]["logit"] * 2.0**exponent
    assert len(read("run", graph, path, "--top", 99)["samples"][0]["outputs"]["output"]["classes"]) == 10
    assert main(["run", str(graph), str(path), "--top", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == [str(path), str(int(logits.argmax()))]


def test_run_takes_other_kinds_of_images(
    graph: Path, digit: tuple[Path, np.ndarray], tmp_path: Path, read: Json
) -> None:
    path, pixels = digit
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "colour.png")
    np.save(tmp_path / "first.npy", pixels[None])
    np.save(tmp_path / "last.npy", pixels[:, :, None])
    Image.fromarray(pixels).resize((30, 20)).save(tmp_path / "large.jpg")
    others = [tmp_path / name for name in ("colour.png", "first.npy", "last.npy")]
    found = [entry["outputs"] for entry in read("run", graph, path, *others)["samples"]]
    assert found == [found[0]] * 4
    assert len(read("run", graph, tmp_path / "large.jpg", "--resize")["samples"]) == 1


def test_run_refuses(graph: Path, digit: tuple[Path, np.ndarray], tmp_path: Path, fails: Callable[..., str]) -> None:
    path, pixels = digit
    Image.fromarray(pixels).resize((30, 20)).save(tmp_path / "large.png")
    message = fails("run", graph, tmp_path / "large.png")
    assert "the network takes images of 8 x 8 pixels, got 30 x 20; pass --resize" in message
    (tmp_path / "text.png").write_text("text")
    assert "text.png: must be a whole image that Pillow can read" in fails("run", graph, tmp_path / "text.png")
    (tmp_path / "half.png").write_bytes(path.read_bytes()[:-30])
    assert "half.png: must be a whole image" in fails("run", graph, tmp_path / "half.png")
    assert "missing.png cannot be read" in fails("run", graph, tmp_path / "missing.png")
    np.save(tmp_path / "float.npy", pixels / 255)
    assert "float.npy: the network takes a uint8 array of shape N x 1 x 8 x 8 for its input" in fails(
        "run", graph, tmp_path / "float.npy"
    )
    (tmp_path / "bad.npy").write_text("text")
    assert "bad.npy cannot be read as arrays" in fails("run", graph, tmp_path / "bad.npy")
    assert "--top must be at least 1" in fails("run", graph, path, "--top", 0, status=2)
    assert "FILE" in fails("run", graph, status=2)


# ---- info -----------------------------------------------------------------------------------------------------------


def test_info(graph: Path, read: Json, capsys: pytest.CaptureFixture[str]) -> None:
    found = read("info", graph)
    loaded = container.load(graph)
    assert found["file_bytes"] == graph.stat().st_size
    assert [layer["name"] for layer in found["layers"]] == [node.name for node in loaded.nodes]
    conv = found["layers"][3]
    assert (conv["name"], conv["weight_states"], conv["weights"]) == ("features.0.conv", 3, 16 * 8 * 9)
    assert conv["macs"] == 16 * 8 * 9 * 64
    assert found["macs"] == sum(layer["macs"] for layer in found["layers"])
    assert found["weights"] == sum(layer["weights"] for layer in found["layers"])
    assert 0.3 < found["nonzero_weights"] < 0.8
    assert found["weight_bytes"] >= found["weight_bound_bytes"] > 0.9 * found["weight_bytes"]
    assert found["labels"] == {"output": list("0123456789")}
    assert main(["info", str(graph)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["layer", "operation"]
    assert lines[len(loaded.nodes) + 3 :] == [
        f"{export_c99(loaded).arena_bytes:,} bytes of RAM in a C99 program (balanced)",
        "input x: uint8 1x8x8, code = stored - 128",
        f"output output: 10, value = code * 2^{loaded.types['output'].exponent}; classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        f"provenance: {loaded.metadata.provenance}",
    ]
    assert main(["info", str(graph), "--text"]) == 0
    assert capsys.readouterr().out == f"{loaded}\n"


def test_info_refuses(tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "text.maqd").write_text("no graph at all")
    assert "text.maqd: its header must have" in fails("info", tmp_path / "text.maqd")
    assert "unknown option '--jsn'; did you mean '--json'?" in fails("info", tmp_path, "--jsn", status=2)
    assert "unexpected argument 'b'" in fails("info", "a", "b", status=2)


# ---- spikes ---------------------------------------------------------------------------------------------------------


def test_spikes(graph: Path, run: Path, read: Json, capsys: pytest.CaptureFixture[str]) -> None:
    found = read("spikes", graph, "--against", run, "--images", "7")
    assert (found["wrong"], found["steps"], found["samples"], found["same_class"]) == (0, 9, 7, 7)
    first = next(layer for layer in found["layers"] if layer["name"] == "stem.act")
    free = read("spikes", graph, "--against", run, "--images", "7", "--mode", "free")
    assert (free["steps"], free["samples"]) == (3, 7)
    assert first in free["layers"]  # constant currents: as many spikes, all of them right
    assert free["wrong"] > 0
    assert main(["spikes", str(graph), "--images", "2"]) == 0
    out = capsys.readouterr().out
    assert "stem.act         thresholds  0..2" in out
    assert "2 samples, 9 steps each: 0 of" in out


# ---- export ---------------------------------------------------------------------------------------------------------


def test_export(graph: Path, tmp_path: Path, read: Json) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    wanted = maqd.load(graph).run(images)
    for profile in ("compatible", "compact"):
        path = tmp_path / f"{profile}.onnx"
        found = read("export", graph, "--to", "onnx", "-o", path, "--profile", profile)
        assert found["bytes"] == path.stat().st_size
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(None, {session.get_inputs()[0].name: images})[0], wanted)
    for flavour in ("quant", "multithreshold"):
        path = tmp_path / f"{flavour}.onnx"
        assert read("export", graph, "--to", "qonnx", "-o", path, "--flavour", flavour)["kind"] == flavour
        assert {entry.domain for entry in onnx.load(path).opset_import} == {"", "qonnx.custom_op.general"}


def test_export_refuses(graph: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "--to" in fails("export", graph, "-o", "m", status=2)
    assert "invalid choice: 'tflite'" in fails("export", graph, "--to", "tflite", "-o", "m", status=2)
    wrong = fails("export", graph, "--to", "onnx", "-o", "m", "--flavour", "quant", status=2)
    assert "--flavour belongs to --to qonnx" in wrong
    assert "--profile belongs to --to onnx" in fails(
        "export", graph, "--to", "qonnx", "-o", "m", "--profile", "compact", status=2
    )
    assert "does not exist; make it first" in fails(
        "export", graph, "--to", "onnx", "-o", tmp_path / "nowhere" / "m.onnx"
    )
    assert list(tmp_path.iterdir()) == []


# ---- what an edge device has ----------------------------------------------------------------------------------------

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])
sys.meta_path.insert(0, Blocker())
from maqd.cli import main
sys.exit(main(sys.argv[1:]))
"""
HEAVY = [
    "torch",
    "lightning",
    "rich",
    "yaml",
    "jsonargparse",
    "sklearn",
    "matplotlib",
    "datasets",
    "pandas",
    "safetensors",
]


def edge(*arguments: object, without: list[str]) -> subprocess.CompletedProcess[str]:
    """A command where some packages are not installed."""
    code = BLOCKED.format(blocked=without)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_info_run_verify_and_export_need_no_training_packages(
    graph: Path, digit: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    onnx_file = tmp_path / "m.onnx"
    for arguments in (
        ["info", graph],
        ["run", graph, digit[0]],
        ["verify", graph, "--images", 3],
        ["export", graph, "--to", "onnx", "-o", onnx_file],
    ):
        result = edge(*arguments, without=HEAVY)
        assert result.returncode == 0, result.stderr
        assert result.stdout


def test_numpy_alone_is_enough(graph: Path, digit: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    bare = [*HEAVY, "PIL", "onnx", "onnxruntime"]
    np.save(tmp_path / "digit.npy", digit[1][None])
    assert edge("info", graph, without=bare).returncode == 0
    assert edge("run", graph, tmp_path / "digit.npy", without=bare).returncode == 0
    result = edge("verify", graph, "--images", 3, without=bare)
    assert result.returncode == 0
    assert "onnxruntime" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "missing", "remedy"),
    [
        (["export", "{graph}", "--to", "onnx", "-o", "{out}"], "onnx", remedy("onnx")),
        (["verify", "{graph}", "--engines", "onnxruntime"], "onnxruntime", remedy("onnx")),
        (["run", "{graph}", "{image}"], "PIL", remedy("PIL")),
        (["lower", "{run}", "-o", "{out}"], "torch", remedy("torch")),
    ],
)
def test_missing_packages_are_named(
    arguments: list[str],
    missing: str,
    remedy: str,
    run: Path,
    graph: Path,
    digit: tuple[Path, np.ndarray],
    tmp_path: Path,
) -> None:
    names = {"graph": graph, "run": run, "image": digit[0], "out": tmp_path / "out"}
    result = edge(*(argument.format(**names) for argument in arguments), without=[missing])
    assert result.returncode == 1
    assert result.stderr.startswith("maqd: error: ")
    assert missing in result.stderr
    assert remedy in result.stderr
    assert not (tmp_path / "out").exists()


def test_help_needs_nothing() -> None:
    for command in ("lower", "verify", "run", "info", "export"):
        result = edge(command, "--help", without=["torch", "onnx", "onnxruntime", "PIL", "rich", "yaml"])
        assert result.returncode == 0
        assert result.stdout.startswith(f"usage: maqd {command} ")


# ---- Python ---------------------------------------------------------------------------------------------------------


def test_python_interface(run: Path, graph: Path, tmp_path: Path) -> None:
    network, _ = load_network(run)
    lowered = maqd.lower(network, torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    maqd.save(lowered.graph, tmp_path / "m.maqd")
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    first, second = maqd.load(tmp_path / "m.maqd"), maqd.load(graph)
    np.testing.assert_array_equal(first.run(images), second.run(images))
    unit = 2.0 ** first.graph.types["output"].exponent
    with torch.no_grad():
        np.testing.assert_array_equal(first.run(images) * unit, network(torch.from_numpy(images)).numpy())
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        maqd.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


# ---- outputs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "status", "message"),
    [
        ("", 2, "must name a file or directory, got an empty text"),
        (".", 1, "is a directory"),
        ("nowhere/x", 1, "needs the directory nowhere, which does not exist; make it first"),
        ("notes.txt", 1, "is another kind of file"),
        ("last.ckpt", 1, "is a checkpoint"),
        ("last.ckpt/x", 1, "which is a file"),
    ],
)
@pytest.mark.parametrize("command", ["lower", "onnx", "qonnx", "c99"])
def test_outputs_are_refused_before_the_work(
    run: Path,
    graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: Callable[..., str],
    command: str,
    output: str,
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(container, "load", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr("maqd.lowering.lower", lambda *_: pytest.fail("the work was begun"))
    Path("notes.txt").write_text("mine")
    Path("last.ckpt").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    arguments = ["lower", run] if command == "lower" else ["export", graph, "--to", command]
    found = fails(*arguments, "-o", output, status=status)
    if command == "c99" and output in ("notes.txt", "last.ckpt"):
        message = "must be an empty or a new directory"
    assert message in found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "notes.txt"]


def test_a_command_never_writes_over_its_own_input(
    run: Path, graph: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    mine = tmp_path / "m.maqd"
    mine.write_bytes(graph.read_bytes())
    assert "is the input itself" in fails("export", mine, "--to", "onnx", "-o", mine)
    assert "is a checkpoint" in fails("lower", run, "-o", run / "checkpoints" / "last.ckpt")
    assert "is another kind of file" in fails("lower", run, "-o", run / "config.yaml")
    assert "is the input itself" in fails("lower", run, "-o", run)
    assert mine.read_bytes() == graph.read_bytes()


def test_an_edited_configuration_is_not_ignored_in_silence(
    run: Path, tmp_path: Path, fails: Callable[..., str], read: Json
) -> None:
    copy = tmp_path / "run"
    (copy / "checkpoints").mkdir(parents=True)
    (copy / "checkpoints" / "last.ckpt").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    text = (run / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("act_states: 4", "act_states: 8"))
    for command in (["eval", copy], ["lower", copy, "-o", tmp_path / "m.maqd"]):
        assert "model.quant.act_states is 4 in the checkpoint, 8 in the file" in fails(*command)
    (copy / "config.yaml").write_text(text.replace("eval_batch_size: 500", "eval_batch_size: 100"))
    assert read("eval", copy)["total"] == 360
