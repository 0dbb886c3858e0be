"""Engines in processes that are forked: DataLoader workers, servers that fork."""

import subprocess
import sys
from pathlib import Path

import pytest
from graphs import every_node

from maqd.graph import container

PROGRAM = """
import os, sys
import numpy as np
import maqd
engine = maqd.load(sys.argv[1], threads=2)
images = np.random.default_rng(0).integers(0, 256, (64, 3, 9, 8), np.uint8)
wanted = maqd.load(sys.argv[1], engine="numpy").run(images)
if "before" in sys.argv[2:]:
    assert np.array_equal(engine.run(images), wanted)
child = os.fork()
if child == 0:
    right = "exit" in sys.argv[2:] or all(np.array_equal(engine.run(images), wanted) for _ in range(3))
    right = right and ("one" not in sys.argv[2:] or np.array_equal(engine.run(images[:1]), wanted[:1]))
    del engine
    sys.exit(0 if right else 7)
_, status = os.waitpid(child, 0)
assert np.array_equal(engine.run(images), wanted)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("how", [("before",), (), ("before", "exit"), ("exit",), ("before", "one")], ids=str)
def test_a_forked_child_runs_and_ends(how: tuple[str, ...], tmp_path: Path):
    path = tmp_path / "graph.maqd"
    container.save(every_node(), path)
    command = [sys.executable, "-c", PROGRAM, str(path), *how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
