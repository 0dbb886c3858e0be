"""The interpreter against loops over Python integers."""

from itertools import product
from typing import Any

import graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maqd.errors import EngineError
from maqd.graph import (
    Add,
    Concat,
    Conv,
    FixedPoint,
    Flatten,
    Gather,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Multiply,
    Output,
    Permute,
    Reshape,
    SumPool,
    Thresholds,
)
from maqd.graph.interpreter import layers
from maqd.numerics.states import States
from maqd.runtime.inputs import prepare
from maqd.runtime.numpy import NumpyEngine

BOUNDED = settings(deadline=None, derandomize=True, database=None)


def window(x: np.ndarray, base: tuple[int, ...], places: Any) -> list[Any]:
    """Values of one channel at some places, None outside."""
    found = []
    for place in places:
        at = tuple(b + p for b, p in zip(base, place, strict=True))
        inside = all(0 <= a < size for a, size in zip(at, x.shape, strict=True))
        found.append(int(x[at]) if inside else None)
    return found


def geometry(data: st.DataObject, dims: int) -> dict[str, tuple[int, ...]]:
    def numbers(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(dims))

    return {"stride": numbers(1, 3), "padding": numbers(0, 3), "trailing": numbers(0, 3), "dilation": numbers(1, 2)}


def windows(space: tuple[int, ...], kernel: tuple[int, ...], options: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """How many windows begin where all of them fits, counted one by one."""
    found = []
    for size, k, s, p, t, d in zip(space, kernel, *(options[name] for name in options), strict=True):
        found.append(sum(begin + (k - 1) * d < p + size + t for begin in range(0, p + size + t, s)))
    return tuple(found)


@settings(BOUNDED, max_examples=60)
@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32))
def test_convolution(data: st.DataObject, dims: int, groups: int, seed: int):
    random = np.random.default_rng(seed)
    kernel = tuple(data.draw(st.integers(1, 3)) for _ in range(dims))
    options = geometry(data, dims)
    space = tuple(
        (k - 1) * d + 1 + data.draw(st.integers(0, 4)) for k, d in zip(kernel, options["dilation"], strict=True)
    )
    fan_in, outputs = data.draw(st.integers(1, 3)), groups * data.draw(st.integers(1, 2))
    weight = graphs.weight(random, 5, outputs, fan_in, *kernel)
    bias = random.integers(-99, 100, outputs) if data.draw(st.booleans()) else None
    node = Conv(name="c", inputs=("x",), weight=weight, exponent=0, bias=bias, groups=groups, **options)
    x = random.integers(-300, 300, (2, groups * fan_in, *space))
    found = node.compute(x)
    codes = weight.unpack().astype(int)
    size = windows(space, kernel, options)
    assert found.shape == (2, outputs, *size)
    places = [tuple(k * d for k, d in zip(p, options["dilation"], strict=True)) for p in np.ndindex(*kernel)]
    for n, o, *at in product(range(2), range(outputs), *map(range, size)):
        base = tuple(a * s - p for a, s, p in zip(at, options["stride"], options["padding"], strict=True))
        total = 0 if bias is None else int(bias[o])
        for i in range(fan_in):
            seen = window(x[n, o // (outputs // groups) * fan_in + i], base, places)
            total += sum(int(w) * (v or 0) for w, v in zip(codes[o, i].flat, seen, strict=True))
        assert found[n, o, *at] == total


@settings(BOUNDED, max_examples=40)
@given(st.data(), st.integers(1, 3), st.integers(0, 2**32))
def test_pooling(data: st.DataObject, dims: int, seed: int):
    random = np.random.default_rng(seed)
    kernel = tuple(data.draw(st.integers(1, 4)) for _ in range(dims))
    options = geometry(data, dims)
    options["padding"] = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    space = tuple(
        (k - 1) * d + 1 + data.draw(st.integers(0, 3)) for k, d in zip(kernel, options["dilation"], strict=True)
    )
    x = random.integers(-300, 300, (2, 2, *space))
    common: dict[str, Any] = {"name": "p", "inputs": ("x",), "kernel": kernel, **options}
    highest, total = MaxPool(**common).compute(x), SumPool(**common, shift=1).compute(x)
    assert highest.shape == total.shape == (2, 2, *windows(space, kernel, options))
    places = [tuple(k * d for k, d in zip(p, options["dilation"], strict=True)) for p in np.ndindex(*kernel)]
    for n, c, *at in np.ndindex(*highest.shape):
        base = tuple(a * s - p for a, s, p in zip(at, options["stride"], options["padding"], strict=True))
        seen = [value for value in window(x[n, c], base, places) if value is not None]
        assert highest[n, c, *at] == max(seen, default=np.iinfo(np.int64).min)
        assert total[n, c, *at] == sum(seen)


def test_elements_in_another_order_or_place():
    random = np.random.default_rng(0)
    x = random.integers(-9, 10, (2, 3, 4, 5))
    turned = Permute(name="p", inputs=("x",), order=(2, 0, 1)).compute(x)
    folded = Reshape(name="r", inputs=("x",), shape=(6, 10)).compute(x)
    picked = Gather(name="g", inputs=("x",), axis=1, indices=np.array([3, -1, 0, 0]), fill=7).compute(x)
    assert (turned.shape, folded.shape, picked.shape) == ((2, 5, 3, 4), (2, 6, 10), (2, 3, 4, 5))
    for n, c, i, j in np.ndindex(*x.shape):
        assert turned[n, j, c, i] == x[n, c, i, j]
        flat = (c * 4 + i) * 5 + j
        assert folded[n, flat // 10, flat % 10] == x[n, c, i, j]
        assert picked[n, c, i, j] == (x[n, c, 3, j], 7, x[n, c, 0, j], x[n, c, 0, j])[i]


def test_products_repeat_dimensions_of_one():
    random = np.random.default_rng(0)
    x, gate = random.integers(-9, 10, (2, 3, 4, 5)), random.integers(-9, 10, (2, 3, 1, 1))
    found = Multiply(name="m", inputs=("x", "gate")).compute(x, gate)
    for n, c, i, j in np.ndindex(*x.shape):
        assert found[n, c, i, j] == int(x[n, c, i, j]) * int(gate[n, c, 0, 0])


@settings(BOUNDED, max_examples=60)
@given(st.integers(2, 20), st.booleans(), st.integers(0, 2), st.integers(0, 2**32))
def test_thresholds_ties_and_signs(count: int, signed: bool, axis: int, seed: int):
    random = np.random.default_rng(seed)
    states = States(count=count, signed=signed)
    cuts = np.sort(random.integers(-9, 10, (count - 1, 3)), axis=0)
    signs = random.choice(np.array([1, -1], np.int8), 3)
    node = Thresholds(
        name="t", inputs=("x",), axis=axis, states=states, step_exponent=0, thresholds=cuts.astype(np.int8), signs=signs
    )
    x = random.integers(-10, 11, (4, 3, 3, 3))
    found = node.compute(x)
    for place in np.ndindex(*x.shape):
        channel = place[axis + 1]
        index = sum(int(signs[channel]) * int(x[place]) >= int(cut) for cut in cuts[:, channel])
        assert found[place] == list(states.codes)[index]


@settings(BOUNDED, max_examples=60)
@given(st.integers(2, 20), st.booleans(), st.integers(0, 40), st.integers(0, 2**32))
def test_fixed_point_rounds_down(count: int, signed: bool, shift: int, seed: int):
    random = np.random.default_rng(seed)
    states = States(count=count, signed=signed)
    a = random.integers(-(2 ** (shift // 2 + 3)), 2 ** (shift // 2 + 3), 3)
    b = random.integers(-(2 ** (shift + 4)), 2 ** (shift + 4), 3)
    node = FixedPoint(
        name="f", inputs=("x",), axis=1, states=states, step_exponent=0, multiplier=a, offset=b, shift=shift
    )
    x = random.integers(-(2 ** (shift // 2 + 4)), 2 ** (shift // 2 + 4), (4, 2, 3))
    found = node.compute(x)
    for place in np.ndindex(*x.shape):
        c = place[2]
        index = min(max((int(a[c]) * int(x[place]) + int(b[c])) // 2**shift, 0), count - 1)
        assert found[place] == list(states.codes)[index]


def test_linear_takes_the_last_dimension():
    random = np.random.default_rng(0)
    weight = graphs.weight(random, 4, 3, 5)
    node = Linear(name="l", inputs=("x",), weight=weight, exponent=0, bias=np.array([1, -2, 3]))
    x = random.integers(-(2**24), 2**24, (2, 4, 5))
    found = node.compute(x)
    for n, t, o in np.ndindex(2, 4, 3):
        products = [int(w) * int(v) for w, v in zip(weight.unpack()[o], x[n, t], strict=True)]
        assert found[n, t, o] == sum(products) + [1, -2, 3][o]


def test_sums_joins_and_flattening():
    random = np.random.default_rng(0)
    x, y = random.integers(-9, 10, (2, 2, 3, 4, 2))
    add = Add(name="a", inputs=("x", "y"), shifts=(2, 0)).compute(x, y)
    np.testing.assert_array_equal(add, 4 * x + y)
    for axis in range(3):
        joined = Concat(name="c", inputs=("x", "y"), shifts=(0, 3), axis=axis).compute(x, y)
        np.testing.assert_array_equal(joined, np.concatenate([x, 8 * y], axis + 1))
    flat = Flatten(name="f", inputs=("x",)).compute(x)
    assert flat[1].tolist() == [int(x[1, i, j, k]) for i in range(3) for j in range(4) for k in range(2)]
    total = GlobalSum(name="g", inputs=("x",), shift=1).compute(x)
    assert total.tolist() == [[sum(map(int, x[n, c].flat)) for c in range(3)] for n in range(2)]


@pytest.mark.parametrize("seed", range(3))
def test_every_tensor_is_within_its_bounds(seed: int):
    graph = graphs.every_node(seed)
    images = np.concatenate([graphs.images(graph, 20, seed), np.zeros((1, 3, 9, 8), np.uint8)])
    images = np.concatenate([images, 255 - images])
    for name, codes in layers(graph, *prepare(graph, images).codes):
        kind = graph.types[name]
        assert codes.shape == (42, *kind.shape)
        assert codes.dtype == np.int64
        assert (codes >= kind.interval.low).all(), name
        assert (codes <= kind.interval.high).all(), name


def test_run_gives_the_last_tensor():
    graph = graphs.every_node()
    images = graphs.images(graph, 4)
    engine = NumpyEngine(graph)
    logits = engine.run(images)
    assert (logits.dtype, logits.shape) == (np.int32, (4, 5))
    np.testing.assert_array_equal(logits, dict(engine.layers(images))["logits"])
    np.testing.assert_array_equal(logits[2:3], engine.run(images[2:3]))
    np.testing.assert_array_equal(logits[2], engine.run(images[2]))
    assert engine.run(images[:0]).shape == (0, 5)


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (np.zeros((1, 3, 9, 8)), "float64"),
        (np.zeros((1, 3, 9, 8), np.int8), "int8"),
        (np.zeros((9, 8), np.uint8), r"uint8 \(9, 8\)"),
        (np.zeros((1, 8, 3, 9), np.uint8), r"uint8 \(1, 8, 3, 9\)"),
        (np.zeros((), np.uint8), r"uint8 \(\)"),
        ([[0]], "list"),
    ],
)
def test_other_images_are_refused(images: Any, got: str):
    with pytest.raises(EngineError, match=f"takes a uint8 array of shape N x 3 x 9 x 8 .*, got {got}.*; pass raw"):
        NumpyEngine(graphs.every_node()).run(images)


def test_a_one_element_sample():
    graph = Graph(nodes=(Input(name="i", inputs=(), shape=(1,)), Output(name="l", inputs=("i",))))
    assert NumpyEngine(graph).run(np.array([[0], [128], [255]], np.uint8)).tolist() == [[-128], [0], [127]]
