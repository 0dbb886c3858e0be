"""Runs that end at any moment: killed, interrupted, or on a full disk.

What they leave is whole or absent. A run goes on bit for bit as if nothing had happened, or says what is missing;
nothing older is lost. `make campaigns` takes 100 moments; the suite a few. Moments are numbered by calls of functions
and uses of files, and chosen with a fixed seed.
"""

import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from children import at_call, at_touch, die, in_child, interrupt, no_space
from effort import KILLS, long
from language_models import language_network
from small_runs import SMALL, entries, full_disk
from spiking_networks import spiking_network

from maqd.cli import main
from maqd.errors import CheckpointError, ConfigError
from maqd.graph import container
from maqd.language import file as language
from maqd.lowering.language import lower_language
from maqd.settings.training import TrainConfig
from maqd.settings.tree import from_plain
from maqd.training.checkpoint import read_checkpoint
from maqd.training.progress import Output
from maqd.training.run_directory import RunDirectory
from maqd.training.runs import open_run
from maqd.training.train import train

CONFIG = from_plain(TrainConfig, yaml.safe_load(SMALL))
"""Two epochs of seven batches."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(run: Path, **options: bool) -> int:
    train(replace(CONFIG, run=str(run)), output=Output(silent=True), **options)
    return 0


def command(run: Path, *arguments: str) -> int:
    return main(["train", "--config", str(run.parent / "small.yaml"), "--run", str(run), *arguments])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    start(folder / "run")
    return folder / "run"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path / "run"


def count(folder: Path, watch: Callable[[], Callable[[], int]], action: Callable[[], int]) -> int:
    """How many moments there are."""

    def counted() -> int:
        found = watch()
        status = action()
        (folder / "count").write_text(str(found()))
        return status

    status = in_child(counted, folder / "said")
    assert status == 0, (folder / "said").read_text()
    return int((folder / "count").read_text())


def moments(total: int, name: str, most: int) -> list[int]:
    """Numbers of some of the moments, the same ones every time; the last one may come later than the action ends."""
    return sorted(random.Random(name).sample(range(1, total + 1), min(total, max(1, most))))


def assert_goes_on(run: Path, whole: Path) -> None:
    """A run that was ended can be resumed and equals the one that was not, or says what is missing."""
    directory = RunDirectory(run)
    if directory.last.exists():
        read_checkpoint(directory.last)
        start(run, resume=True)
    else:
        if directory.path.exists():
            with pytest.raises(CheckpointError, match=r"no checkpoint to resume from; start it"):
                start(run, resume=True)
        try:
            start(run)
        except ConfigError as error:
            assert "already holds a run without last.ckpt" in str(error)  # noqa: PT017
            start(run, overwrite=True)
    for event in ("train", "test"):
        assert entries(run, event) == entries(whole, event)
    one, two = (read_checkpoint(RunDirectory(path).last).trained_state() for path in (run, whole))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not list(run.rglob("*.tmp"))


# ---- killed ---------------------------------------------------------------------------------------------------------


def test_a_run_killed_at_any_call_goes_on_bit_for_bit(run: Path, whole: Path, tmp_path: Path):
    total = count(tmp_path, lambda: at_call(0, die), lambda: start(run))
    for number in moments(total, "killed at a call", KILLS // 2):
        shutil.rmtree(run, ignore_errors=True)

        def killed(number: int = number) -> int:
            at_call(number, die)
            return start(run)

        assert in_child(killed, tmp_path / "said") in (-9, 0)
        assert_goes_on(run, whole)


def test_a_run_killed_at_any_use_of_a_file_goes_on_bit_for_bit(run: Path, whole: Path, tmp_path: Path):
    total = count(tmp_path, lambda: at_touch(0, run, die), lambda: start(run))
    for number in moments(total, "killed at a file", KILLS // 4):
        shutil.rmtree(run, ignore_errors=True)

        def killed(number: int = number) -> int:
            at_touch(number, run, die)
            return start(run)

        assert in_child(killed, tmp_path / "said") == -9
        assert_goes_on(run, whole)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed before it saved its second epoch."""
    folder = tmp_path_factory.mktemp("half")

    def killed() -> int:
        at_touch(4, folder / "run", die, name="last.ckpt")  # removed, made, renamed, and made again
        return start(folder / "run")

    assert in_child(killed, folder / "said") == -9
    assert read_checkpoint(RunDirectory(folder / "run").last).header.position.step == 7
    return folder / "run"


def test_a_resumed_run_killed_at_any_use_of_a_file_loses_no_checkpoint(
    run: Path, whole: Path, half: Path, tmp_path: Path
):
    shutil.copytree(half, run)
    total = count(tmp_path, lambda: at_touch(0, run, die), lambda: start(run, resume=True))
    for number in moments(total, "killed again", KILLS // 4):
        shutil.rmtree(run)
        shutil.copytree(half, run)

        def killed(number: int = number) -> int:
            at_touch(number, run, die)
            return start(run, resume=True)

        assert in_child(killed, tmp_path / "said") == -9
        assert read_checkpoint(RunDirectory(run).last).header.position.step >= 7
        assert_goes_on(run, whole)


# ---- interrupted ----------------------------------------------------------------------------------------------------


def test_ctrl_c_at_any_call_of_train_leaves_a_run_that_goes_on(run: Path, whole: Path, tmp_path: Path):
    total = count(tmp_path, lambda: at_call(0, interrupt), lambda: command(run))
    for number in moments(total, "interrupted train", KILLS // 4):
        shutil.rmtree(run, ignore_errors=True)

        def interrupted(number: int = number) -> int:
            at_call(number, interrupt)
            return command(run)

        status = in_child(interrupted, tmp_path / "said")
        said = (tmp_path / "said").read_text()
        assert status in (0, 130), said
        assert "Traceback" not in said
        assert_goes_on(run, whole)


@pytest.fixture(scope="module")
def graph(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "m.maqd"
    container.save(open_run(whole).graph, path)
    return path


def writing(kind: str, whole: Path, graph: Path, output: Path) -> list[str]:
    """The command that writes an artefact."""
    if kind == "lower":
        return ["lower", str(whole), "-o", str(output)]
    if kind == "report":
        return ["report", str(whole), "-o", str(output), "--samples", "2"]
    return ["export", str(graph), "--to", kind, "-o", str(output)]


def content(path: Path) -> dict[str, bytes]:
    """What is in a file or a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files}


KINDS = ("lower", "onnx", "qonnx", "c99", "report")


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_at_any_call_leaves_an_artefact_whole_or_absent(kind: str, whole: Path, graph: Path, tmp_path: Path):
    output = tmp_path / "out" / "made"
    output.parent.mkdir()
    arguments = writing(kind, whole, graph, output)
    # Here, so that no other package is interrupted while it is imported: onnx ends the process then.
    assert main(arguments) == 0
    expected = content(output)
    shutil.rmtree(output.parent)
    output.parent.mkdir()
    total = count(tmp_path, lambda: at_call(0, interrupt), lambda: main(arguments))
    for number in moments(total, f"interrupted {kind}", KILLS // 8):
        shutil.rmtree(output.parent)
        output.parent.mkdir()

        def interrupted(number: int = number) -> int:
            at_call(number, interrupt)
            return main(arguments)

        status = in_child(interrupted, tmp_path / "said")
        said = (tmp_path / "said").read_text()
        assert status in (0, 130), said
        assert "Traceback" not in said
        assert content(output.parent) in ({}, {f"out/{name}": data for name, data in expected.items()})


# ---- full disks -----------------------------------------------------------------------------------------------------

ONE_LINE = re.compile(r"maqd: error: .*\n")


def test_a_full_disk_at_any_use_of_a_file_ends_a_run_in_one_line(run: Path, whole: Path, tmp_path: Path):
    total = count(tmp_path, lambda: at_touch(0, run, no_space), lambda: command(run))
    for number in moments(total, "full disk", KILLS // 4):
        shutil.rmtree(run, ignore_errors=True)

        def full(number: int = number) -> int:
            at_touch(number, run, no_space)
            return command(run)

        status = in_child(full, tmp_path / "said")
        said = (tmp_path / "said").read_text()
        assert status in (0, 1), said
        assert "Traceback" not in said
        if status:
            assert "maqd: error: " in said
            assert "free some space" in said
        assert_goes_on(run, whole)


def test_a_full_disk_in_the_middle_of_any_file_ends_a_run_in_one_line(run: Path, whole: Path, tmp_path: Path):
    sizes = sorted({path.stat().st_size for path in whole.rglob("*") if path.is_file()})
    limits = sorted({0, 1, *(max(size - 1, 0) for size in sizes), *(size // 2 for size in sizes)})
    for limit in random.Random("limits").sample(limits, min(len(limits), max(1, KILLS // 4))):
        shutil.rmtree(run, ignore_errors=True)

        def full(limit: int = limit) -> int:
            with full_disk(limit):
                return command(run)

        # What it prints must fit, too: a pipe, not a file.
        status = in_child(full, tmp_path / "said", piped=True)
        said = (tmp_path / "said").read_text()
        assert status == 1, said
        assert "Traceback" not in said
        assert "maqd: error: " in said
        assert "free some space" in said
        assert_goes_on(run, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_at_any_use_of_a_file_leaves_what_was_there(kind: str, whole: Path, graph: Path, tmp_path: Path):
    output = tmp_path / "out" / "made"
    output.parent.mkdir()
    arguments = writing(kind, whole, graph, output)
    total = count(tmp_path, lambda: at_touch(0, output.parent, no_space), lambda: main(arguments))
    before = {} if kind == "c99" else content(output)
    for number in moments(total, f"full {kind}", KILLS):
        if kind == "c99":  # a new directory
            shutil.rmtree(output.parent)
            output.parent.mkdir()

        def full(number: int = number) -> int:
            at_touch(number, output.parent, no_space)
            return main(arguments)

        status = in_child(full, tmp_path / "said")
        said = (tmp_path / "said").read_text()
        if status == 0:
            continue
        assert status == 1, said
        assert ONE_LINE.fullmatch(said.splitlines(keepends=True)[-1]), said
        assert "Traceback" not in said
        assert str(output) in said
        assert content(output.parent) == {f"out/{name}": data for name, data in before.items()}


WRITERS = (*KINDS, "arrays", "picture", "nir", "gguf", "experiment")


def every_writer(folder: Path, whole: Path, graph: Path, output: Path) -> dict[str, list[str]]:
    """Commands that write anything but a run, by what they write; what they read is made in a folder."""
    files = {name: folder / name for name in ("samples.npy", "spiking.maqd", "text.maqd")}
    np.save(files["samples.npy"], np.zeros((3, 1, 8, 8), np.uint8))
    container.save(spiking_network(0, 2), files["spiking.maqd"])
    language.save(lower_language(language_network()), files["text.maqd"])
    shutil.copy(Path(__file__).parents[2] / "docs" / "experiments" / "results.jsonl", folder)
    return {
        **{kind: writing(kind, whole, graph, output) for kind in KINDS},
        "arrays": ["run", str(graph), str(files["samples.npy"]), "-o", f"{output}.npz"],
        "picture": ["spikes", str(graph), "--images", "1", "--picture", str(output)],
        "nir": ["export", str(files["spiking.maqd"]), "--to", "nir", "-o", str(output)],
        "gguf": ["export", str(files["text.maqd"]), "--to", "gguf", "--type", "f32", "-o", str(output)],
        "experiment": ["experiment", "functions", "--table", "-o", str(output.parent)],
    }


@pytest.mark.parametrize("kind", ["report", *(pytest.param(kind, marks=long) for kind in WRITERS if kind != "report")])
def test_a_full_disk_in_the_middle_of_any_file_leaves_what_was_there(
    kind: str, whole: Path, graph: Path, tmp_path: Path
):
    if kind in ("nir", "gguf"):
        pytest.importorskip(kind)
    output = tmp_path / "out" / "made"
    output.parent.mkdir()
    arguments = every_writer(tmp_path, whole, graph, output)[kind]
    if kind == "experiment":
        shutil.move(tmp_path / "results.jsonl", output.parent)
    given = content(output.parent)
    assert main(arguments) == 0
    made = content(output.parent)
    sizes = {len(data) for name, data in made.items() if name not in given}
    limits = sorted({0, 1, *(size - 1 for size in sizes), *(size // 2 for size in sizes)})
    for limit in random.Random(f"limits {kind}").sample(limits, min(len(limits), max(1, KILLS // 4))):

        def full(limit: int = limit) -> int:
            with full_disk(limit):
                return main(arguments)

        if kind != "c99":  # which replaces nothing
            assert in_child(full, tmp_path / "said", piped=True) == 1, (tmp_path / "said").read_text()
            assert content(output.parent) == made
        shutil.rmtree(output.parent)
        output.parent.mkdir()
        for name, data in given.items():
            (tmp_path / name).write_bytes(data)
        assert in_child(full, tmp_path / "said", piped=True) == 1
        said = (tmp_path / "said").read_text()
        assert ONE_LINE.fullmatch(said.splitlines(keepends=True)[-1]), said
        assert "Traceback" not in said
        assert "free some space" in said
        assert str(output.parent) in said
        left = content(output.parent)
        assert left.items() <= made.items()  # an experiment has three files, of which the first ones may be whole
        assert left == given or kind == "experiment"
        assert main(arguments) == 0
        assert content(output.parent) == made


COMMANDS_THAT_PRINT = ("--help", "--version", "info GRAPH", "info GRAPH --json", "recipes --json")


@pytest.mark.parametrize("words", COMMANDS_THAT_PRINT)
def test_a_full_disk_below_standard_output_ends_a_command_in_one_line(words: str, graph: Path, tmp_path: Path):
    arguments = words.replace("GRAPH", str(graph)).split()

    def full() -> int:
        sys.stdout = Path("/dev/full").open("w")  # noqa: SIM115
        return main(arguments)

    assert in_child(full, tmp_path / "said") == 1
    wanted = "maqd: error: standard output: No space left on device; free some space\n"
    assert (tmp_path / "said").read_text() == wanted


@long
def test_a_full_disk_at_any_use_of_a_file_ends_the_demo_in_one_line_and_it_can_start_again(tmp_path: Path):
    folder = tmp_path / "demo"
    arguments = ["demo", "--output", str(folder), "--epochs", "1"]
    total = count(tmp_path, lambda: at_touch(0, folder, no_space), lambda: main(arguments))
    for number in moments(total, "full demo", KILLS // 16):

        def full(number: int = number) -> int:
            at_touch(number, folder, no_space)
            return main(arguments)

        status = in_child(full, tmp_path / "said")
        said = (tmp_path / "said").read_text()
        assert status in (0, 1), said
        assert "Traceback" not in said
        if status:
            assert "maqd: error: " in said
            assert "free some space" in said
        assert not list(folder.glob("*.tmp"))
    assert in_child(lambda: main(arguments), tmp_path / "said") == 0, (tmp_path / "said").read_text()
