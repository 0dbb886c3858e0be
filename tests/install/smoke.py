"""An installed maqd, tried with NumPy alone: a graph of every node is saved, loaded, run and exported.

    python tests/install/smoke.py [--onnx]

`--onnx` also compares with ONNX Runtime. Prints one line; the status is 0 if all integers are the same.
"""

import argparse
import importlib.metadata
import importlib.resources
import sys
import tempfile
from pathlib import Path

import numpy as np

import maqd
from maqd.export.c99 import export_c99
from maqd.runtime.native import NativeEngine, native_module
from maqd.runtime.numpy import NumpyEngine
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import Engine, verify

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from graphs import every_node


def main() -> int:
    """Tries everything; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", action="store_true", help="compare with ONNX Runtime, too")
    options = parser.parse_args()
    if importlib.metadata.version("maqd") != maqd.__version__:
        raise SystemExit("the installed version is not that of the package")
    if not importlib.resources.files("maqd").joinpath("py.typed").is_file():
        raise SystemExit("py.typed is missing: type checkers will not look at the package")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.maqd"
        maqd.save(every_node(), path)
        graph = maqd.load(path).graph
        engines: list[Engine] = [NumpyEngine(graph)]
        if native_module() is not None:
            engines.append(NativeEngine(graph))
        if options.onnx:
            engines.append(OnnxRuntime(graph))
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (5, *graph.input.shape), dtype=np.uint8)
        result = verify(graph, engines, [images])
        files = export_c99(graph).files
    names = ", ".join(engine.name for engine in engines)
    print(
        f"maqd {maqd.__version__} in {Path(maqd.__file__).parent}: {names} agree: {result.ok}; C99: {len(files)} files"
    )
    return 0 if result.ok and files else 1


if __name__ == "__main__":
    sys.exit(main())
