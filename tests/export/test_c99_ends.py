"""C99 programs with any inputs and outputs: their names, types and numbers, and floats at the border."""

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import pytest
from effort import GRAPHS
from programs import GCC
from random_graphs import hard_samples, random_graphs

from maqd.export.c99 import Strategy, export_c99
from maqd.export.c99.ends import identifiers
from maqd.graph import Add, Border, Conv, Graph, Input, Linear, Output, Storage
from maqd.numerics.states import Grid
from maqd.runtime.c99 import WARNINGS, CEngine
from maqd.runtime.numpy import NumpyEngine
from maqd.runtime.verify import verify

HOSTILE = ("a.b", "a_b", "A b", "a_b_2", "int", "", "3", "x*/", 'q"\\', "ü?", "??/", "new\nline")
"""Keys and names that C would take for something else, or for one another."""


def floats(border: Border, shape: tuple[int, ...], grid: Grid) -> Graph:
    """A graph that hands its float input over."""
    node = Input(name="x", key="x", inputs=(), shape=shape, grid=grid, storage=Storage.F32, border=border)
    return Graph(nodes=(node, Output(name="y", key="y", inputs=("x",))))


def test_every_key_has_an_identifier_of_its_own() -> None:
    found = identifiers("in", list(HOSTILE))
    assert len({name.lower() for name in found}) == len(HOSTILE)
    assert all(name.isidentifier() and name.isascii() for name in found)
    assert found[0] == "in_a_b"


@pytest.mark.parametrize("strategy", list(Strategy))
def test_hostile_keys_and_names_compile_and_give_the_same(strategy: Strategy) -> None:
    random = np.random.default_rng(0)
    sources = [Input(name=f"in {key}", key=key, inputs=(), shape=(3,)) for key in HOSTILE]
    sums = [
        Linear(name=f"sum {key}", inputs=(f"in {key}",), weight=graphs.weight(random, 3, 2, 3), exponent=0)
        for key in HOSTILE
    ]
    outputs = [Output(name=f"out {key}", key=key, inputs=(f"sum {key}",)) for key in HOSTILE]
    graph = Graph(nodes=(*sources, *sums, *outputs))
    result = verify(graph, [CEngine(graph, strategy=strategy, flags=GCC.flags)], [hard_samples(graph)])
    assert result.ok, result
    assert result.engines[0].tensors >= 2 * len(HOSTILE)


def test_random_graphs_with_floats_on_the_engine() -> None:
    chosen = [graph for graph in random_graphs(GRAPHS) if any(node.border is not None for node in graph.inputs)]
    chosen = sorted(chosen, key=lambda graph: sum(graph.macs(node.name) for node in graph.nodes))[:4]
    for place, graph in enumerate(chosen):
        samples = hard_samples(graph)
        engine = CEngine(graph, strategy=list(Strategy)[place % 3], flags=GCC.flags)
        assert verify(graph, [engine], [samples]).ok
        np.testing.assert_equal(engine.run(*samples), NumpyEngine(graph).run(*samples))
    assert len(chosen) == 4


def test_the_header_says_what_integers_mean() -> None:
    random = np.random.default_rng(0)
    weight = graphs.weight(random, 3, 4, 2, 1, 1)
    one = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    graph = Graph(
        nodes=(
            Input(
                name="a", key="left.eye", inputs=(), shape=(2, 3, 5), storage=Storage.U16, zero=7,
                grid=Grid(low=-7, high=900, exponent=-3),
            ),
            Input(name="b", key="right", inputs=(), shape=(2, 3, 5), storage=Storage.I8, zero=0),
            Conv(name="c", inputs=("a",), weight=weight, exponent=0, **one),
            Conv(name="d", inputs=("b",), weight=weight, exponent=3, **one),
            Add(name="e", inputs=("c", "d"), shifts=(0, 0)),
            Output(name="y", key="map", inputs=("e",), divisor=9),
        )
    )  # fmt: skip
    files = export_c99(graph, prefix="net").files
    header = files["net_model.h"]
    for line in (
        "/* left.eye: uint16_t [3][5][2] */",
        "#define NET_IN_LEFT_EYE_SIZE 30",
        "#define NET_IN_LEFT_EYE_ZERO (7)",
        "#define NET_IN_LEFT_EYE_LOWEST (0)",
        "#define NET_IN_LEFT_EYE_HIGHEST (907)",
        "#define NET_IN_LEFT_EYE_EXPONENT (-3)",
        "#define NET_IN_RIGHT_LOWEST (-128)",
        "/* map: int32_t [3][5][4] */",
        "#define NET_OUT_MAP_EXPONENT (-3)",
        "#define NET_OUT_MAP_DIVISOR 9",
    ):
        assert line in header.splitlines()
    prototype = "int net_run(const uint16_t *in_left_eye, const int8_t *in_right, int32_t *out_map);"
    assert prototype in " ".join(header.split())
    assert not any(name.endswith("quantize.c") for name in files)
    assert "float" not in files["net_model.c"]


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        pytest.skip("needs a C compiler")
    return found


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("flags", [("-O2",), ("-O3", "-ffast-math"), ("-O1", "-fsanitize=undefined")])
def test_quantizers_equal_the_exact_rule(axis: int, flags: tuple[str, ...], compiler: str, tmp_path: Path) -> None:
    shape = (3, 4, 5)
    random = np.random.default_rng(axis)
    count = shape[axis]
    every = np.array([0, 1, 2**23, 0x7F7FFFFF, 0x7F800000], np.uint32).view(np.float32)  # 0, denormals, the ends
    for shift, top in ((0, 3), (12, 2**12), (28, 2**29), (62, 2**29)):
        border = Border(
            multiplier=random.choice(np.array([-1, 1]), count) * random.integers(1, top, count),
            offset=random.integers(-(2**29) + 1, 2**29, count) if top == 3 else random.integers(-99, 100, count),
            shift=shift,
            axis=axis,
        )
        grid = Grid(low=-3000, high=3000, exponent=0) if shift else Grid(low=-7, high=15, exponent=0)
        graph = floats(border, shape, grid)
        files = export_c99(graph, prefix="net").files
        for name in ("net_quantize.c", "net_quantize.h"):
            (tmp_path / name).write_text(files[name])
        library = tmp_path / f"quantize{shift}.so"
        command = [compiler, *WARNINGS, *flags, "-fno-sanitize-recover=all", "-shared", "-fPIC", "net_quantize.c"]
        done = subprocess.run([*command, "-o", str(library)], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        quantize = ctypes.CDLL(str(library)).net_quantize_x
        # Numbers near every code and half code, any bits at all, and the extremes with both signs.
        scale, offset = border.factors(3)
        halves = random.integers(2 * grid.low - 4, 2 * grid.high + 5, (40, *shape)) / 2
        with np.errstate(over="ignore"):
            near = ((halves - offset) / scale).astype(np.float32)
        near = np.nextafter(near, random.choice([-np.inf, np.inf], near.shape).astype(np.float32))
        bits = random.integers(0, 2**32, (40, *shape), dtype=np.uint32).view(np.float32)
        ends = random.choice(np.concatenate([every, -every]), (10, *shape))
        samples = np.concatenate([np.nan_to_num(bits, nan=0.25), near, ends, -near]).astype(np.float32)
        wanted = border.codes(samples, grid)
        dtype, zero = (np.int16, 0) if shift else (np.uint8, 7)
        for values, codes in zip(samples, wanted, strict=True):
            given = np.ascontiguousarray(np.moveaxis(values, 0, -1))
            found = np.empty(given.shape, dtype)
            quantize(ctypes.c_void_p(given.ctypes.data), ctypes.c_void_p(found.ctypes.data))
            np.testing.assert_array_equal(np.moveaxis(found, -1, 0).astype(np.int64) - zero, codes)
        nothing = np.full(shape, np.nan, np.float32)
        found = np.empty(shape, dtype)
        quantize(ctypes.c_void_p(nothing.ctypes.data), ctypes.c_void_p(found.ctypes.data))
        assert (found.astype(np.int64) - zero == grid.low).all()


def test_bytes_of_another_grid_are_no_plain_image() -> None:
    graph = graphs.every_node()
    other = replace(graph.nodes[0], grid=Grid(low=0, high=255, exponent=0), zero=0)
    header = export_c99(Graph(nodes=(other, *graph.nodes[1:])), prefix="net").files["net_model.h"]
    assert "const uint8_t *in_input" in header
    assert "const uint8_t *image" in export_c99(graph, prefix="net").files["net_model.h"]
