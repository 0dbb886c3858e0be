"""Engines go on when their file is truncated, written over, replaced or removed while they are in use."""

import subprocess
import sys
from pathlib import Path

import graphs
import numpy as np
import pytest

import maqd
from maqd.errors import FormatError
from maqd.graph import container

SCRIPT = """
import sys
import numpy as np
import maqd
from maqd.errors import FormatError
from maqd.graph import container

file, images, engine, change = sys.argv[1:]
images = np.load(images)
engine = maqd.load(file, engine=engine)
before = engine.run(images)
data = open(file, "rb").read()
if change == "truncated":
    open(file, "r+b").truncate(100)
elif change == "emptied":
    open(file, "wb").close()
elif change == "written over":
    open(file, "r+b").write(bytes(len(data)))
assert np.array_equal(engine.run(images), before)
try:
    assert container.to_bytes(engine.graph) == data
    assert dict(engine.layers(images))
    print("whole")
except FormatError as error:
    print(error)
"""

CHANGES = ["truncated", "emptied", "written over"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    graph = graphs.every_node()
    path = tmp_path / "m.maqd"
    container.save(graph, path)
    np.save(tmp_path / "images.npy", graphs.images(graph, 2))
    return path


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("engine", ["numpy", "native"])
def test_a_file_changed_in_place_does_not_end_the_process(file: Path, engine: str, change: str):
    command = [sys.executable, "-c", SCRIPT, str(file), str(file.with_name("images.npy")), engine, change]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if engine == "numpy":
        assert done.stdout == "whole\n"
    else:  # its weights had left memory
        assert f"{file} was changed while it was in use; load it again" in done.stdout


@pytest.mark.parametrize("engine", ["numpy", "native"])
@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_file_replaced_by_another_is_still_there_for_its_engine(file: Path, engine: str, change: str):
    data, images = file.read_bytes(), np.load(file.with_name("images.npy"))
    made = maqd.load(file, engine=engine)
    before = made.run(images)
    if change == "replaced":
        container.save(graphs.every_node(1), file)
    else:
        file.unlink()
    np.testing.assert_array_equal(made.run(images), before)
    assert container.to_bytes(made.graph) == data
    assert dict(made.layers(images))[made.graph.output.name].shape == before.shape


def test_a_file_replaced_before_its_memory_is_released_stays_in_memory(file: Path):
    data = file.read_bytes()
    graph = container.load(file)
    container.save(graphs.every_node(1), file)
    container.release(graph)
    assert container.to_bytes(graph) == data


def test_a_loaded_graph_says_that_its_file_was_changed(file: Path):
    graph = container.load(file)
    container.release(graph)
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with pytest.raises(FormatError, match="replace such files by renaming new ones instead of writing into them"):
        container.to_bytes(graph)


def test_loading_leaves_no_file_open(file: Path):
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs Linux")
    before = len(list(folder.iterdir()))
    made = maqd.load(file)
    graph = container.load(file)
    container.release(graph)
    del made, graph
    assert len(list(folder.iterdir())) == before
