"""Files of an earlier version still load, and every tensor has the digest that it had then.

Other tests compare engines with the interpreter; this one notices when the interpreter itself, or the reading of files,
comes to other integers. golden/ has a graph with many kinds of nodes and two networks after some training on the
digits; golden/digests.json the digests. Where names or the schema change on purpose, write them anew:

    python tests/graph/test_golden.py
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from maqd.graph import Graph, container, interpreter

FOLDER = Path(__file__).with_name("golden")
DIGESTS = FOLDER / "digests.json"
FILES = sorted(FOLDER.glob("*.maqd"))


def images(graph: Graph) -> np.ndarray:
    """Three images of bytes that depend on no generator of random numbers: a multiplicative hash of their places."""
    size = int(np.prod(graph.input.shape))
    return (np.arange(3 * size, dtype=np.uint32) * np.uint32(2654435761) >> 24).reshape(3, *graph.input.shape)


def digests(path: Path) -> dict[str, str]:
    """The first 16 hexadecimal digits of each tensor's SHA-256, as little-endian int64."""
    graph = container.load(path)
    codes = images(graph).astype(np.int64) - graph.input.zero
    return {
        name: hashlib.sha256(np.ascontiguousarray(values, "<i8").tobytes()).hexdigest()[:16]
        for name, values in interpreter.layers(graph, codes)
    }


def test_there_is_a_digest_of_every_file():
    assert list(json.loads(DIGESTS.read_text())) == [path.stem for path in FILES]
    assert len(FILES) == 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_tensor_is_what_it_was(path: Path):
    found = digests(path)
    assert found == json.loads(DIGESTS.read_text())[path.stem]
    assert len(set(found.values())) >= 0.7 * len(found)  # a dead network would protect nothing


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps({path.stem: digests(path) for path in FILES}, indent=1) + "\n")
