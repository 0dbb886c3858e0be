"""What holds for all tests.

MAQD_NATIVE_MODULE names another build of the compiled module to test, such as one with sanitizers.
"""

import importlib.util
import os
import sys

# The processes of pytest-xdist share the cores: threads of small networks would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if path := os.environ.get("MAQD_NATIVE_MODULE"):
    spec = importlib.util.spec_from_file_location("maqd._native", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["maqd._native"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
