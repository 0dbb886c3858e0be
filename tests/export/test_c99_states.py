"""C programs that remember: a state of the caller's, equal to the interpreter in every frame."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from effort import LONG
from stateful import stateful_network

from maqd.export.c99 import export_c99
from maqd.graph import Graph
from maqd.runtime import Session
from maqd.runtime.c99 import WARNINGS
from maqd.runtime.numpy import NumpyEngine

CC = shutil.which("cc") or shutil.which("gcc")
GRAPHS = 50 if LONG else 1
FRAMES = 100
SIZE = "unsigned long maqd_state_size(void);\nunsigned long maqd_state_size(void) { return sizeof(maqd_state); }\n"

pytestmark = pytest.mark.skipif(CC is None, reason="needs a C compiler")


def compiled(graph: Graph, folder: Path) -> ctypes.CDLL:
    source = export_c99(graph, prefix="maqd").source
    (folder / "maqd_model.h").write_text(source.header)
    (folder / "maqd_model.c").write_text(source.code + SIZE)
    library = folder / "program.so"
    command = [str(CC), *WARNINGS, "-O1", "-shared", "-fPIC", str(folder / "maqd_model.c"), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_programs_remember_what_sessions_do(seed: int, tmp_path: Path):
    graph = stateful_network(seed).graph()
    library = compiled(graph, tmp_path)
    library.maqd_state_size.restype = ctypes.c_ulong
    streams = [ctypes.create_string_buffer(library.maqd_state_size()) for _ in range(2)]
    session = Session(NumpyEngine(graph), 2)
    random = np.random.default_rng(seed)
    logits = np.zeros(graph.types["logits"].size, np.int32)
    for start in range(2):  # the second time after a reset
        session.reset()
        assert [library.maqd_reset(stream) for stream in streams] == [0, 0]
        for _ in range(FRAMES if start == 0 else 3):
            frame = random.integers(0, 256, (2, *graph.inputs[0].shape)).astype(np.uint8)
            wanted = session.step(frame)["logits"]
            for place, stream in enumerate(streams):
                given = np.ascontiguousarray(np.moveaxis(frame[place], 0, -1))
                pointers = [ctypes.c_void_p(array.ctypes.data) for array in (given, logits)]
                assert library.maqd_step(stream, *pointers) == 0
                np.testing.assert_array_equal(logits, wanted[place])
    assert library.maqd_step(None, None, None) == 1
    assert library.maqd_reset(None) == 1


def test_programs_without_memories_have_no_state():
    graph = Graph(nodes=stateful_network(0).graph().nodes)
    source = export_c99(graph, prefix="maqd").source
    assert "_state" not in source.header
    assert "maqd_step(" not in source.code
