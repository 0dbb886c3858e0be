"""The bounds in files, derived once more from docs/format.md alone: JSON, safetensors and lists of integers."""

import itertools
import json
import math
import struct
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
from effort import GRAPHS
from random_graphs import random_graphs
from safetensors.numpy import load as load_safetensors

from maqd.graph import NODES, Graph, container, interpreter
from maqd.runtime import inputs

PAGE = Path(__file__).parents[2] / "docs" / "format.md"

Pair = tuple[int, int]


class Pairs:
    """Bounds of a tensor: a pair for each place of a shape that has 1 where one pair holds for the whole dimension."""

    def __init__(self, shape: tuple[int, ...], pairs: list[Pair]) -> None:
        assert math.prod(shape) == len(pairs)
        self.shape, self.pairs = shape, pairs

    @property
    def all(self) -> Pair:
        return min(low for low, _ in self.pairs), max(high for _, high in self.pairs)

    def at(self, place: tuple[int, ...]) -> Pair:
        """The pair of an element."""
        index = 0
        for position, size in zip(place, self.shape, strict=True):
            index = index * size + (position if size > 1 else 0)
        return self.pairs[index]

    def merged(self, kept: int) -> "Pairs":
        """One pair for each position of one dimension."""
        shape = tuple(size if d == kept else 1 for d, size in enumerate(self.shape))
        found: list[list[Pair]] = [[] for _ in range(shape[kept])]
        for place, pair in zip(itertools.product(*map(range, self.shape)), self.pairs, strict=True):
            found[place[kept]].append(pair)
        return Pairs(shape, [(min(low for low, _ in some), max(high for _, high in some)) for some in found])

    def mapped(self, change: Any) -> "Pairs":
        return Pairs(self.shape, [change(low, high) for low, high in self.pairs])


def codes(node: dict[str, Any], packed: np.ndarray) -> list[list[int]]:
    """The weight codes of each output."""
    m, signed = node["weight"]["states"]["count"], node["weight"]["states"]["signed"]
    spacing = 2 if signed and m % 2 == 0 else 1
    low = -(m - 1) * spacing // 2 if signed else 0
    sizes = [(8 * b / math.floor(8 * b / math.log2(m) + 1e-12), b) for b in range(1, 9) if 8 * b >= math.log2(m)]
    fit = [b for bits, b in sizes if bits <= 1.02 * math.log2(m)]
    b = fit[0] if fit else min(sizes)[1]
    d = math.floor(8 * b / math.log2(m) + 1e-12)
    length = math.prod(node["weight"]["shape"][1:])
    rows = []
    for row in packed.tolist():
        indices: list[int] = []
        for at in range(0, len(row), b):
            number = int.from_bytes(bytes(row[at : at + b]), "little")
            for _ in range(d):
                indices.append(number % m)
                number //= m
        rows.append([low + spacing * index for index in indices[:length]])
    return rows


def derive(node: dict[str, Any], x: list[Pairs], shapes: list[list[int]], tensors: Any, place: int) -> Pairs:
    """The bounds of a node by the table of the page."""
    rank = len(node["output"]["shape"])
    match node["operation"]:
        case "input":
            return Pairs((1,) * rank, [(node["grid"]["low"], node["grid"]["high"])])
        case "conv" | "linear":
            low, high = min(x[0].all[0], 0), max(x[0].all[1], 0)
            rows = codes(node, tensors[f"{place}.weight"])
            bias = tensors[f"{place}.bias"].tolist() if f"{place}.bias" in tensors else [0] * len(rows)
            found = []
            for row, b in zip(rows, bias, strict=True):
                p, n = sum(w for w in row if w > 0), -sum(w for w in row if w < 0)
                found.append((low * p - high * n + b, high * p - low * n + b))
            axis = 0 if node["operation"] == "conv" else rank - 1
            return Pairs(tuple(len(found) if d == axis else 1 for d in range(rank)), found)
        case "thresholds" | "fixed_point":
            m, signed = node["states"]["count"], node["states"]["signed"]
            top = (m - 1) // 2 if signed and m % 2 else m - 1
            return Pairs((1,) * rank, [(-top if signed else 0, top)])
        case "max_pool":
            return x[0].merged(0)
        case "sum_pool":
            n, padded = math.prod(node["kernel"]), any(node["padding"] + node["trailing"])
            return x[0].merged(0).mapped(
                lambda low, high: (n * min(low, 0), n * max(high, 0)) if padded else (n * low, n * high)
            )  # fmt: skip
        case "global_sum":
            n = math.prod(shapes[0][1:])
            merged = x[0].merged(0).mapped(lambda low, high: (n * low, n * high))
            return Pairs((merged.shape[0],), merged.pairs)
        case "add":
            shape = tuple(max(sizes) for sizes in zip(*(one.shape for one in x), strict=True))
            found = []
            for at in itertools.product(*map(range, shape)):
                pairs = [one.at(at) for one in x]
                found.append(
                    tuple(sum(p[end] << s for p, s in zip(pairs, node["shifts"], strict=True)) for end in (0, 1))
                )
            return Pairs(shape, found)
        case "concat":
            axis, found = node["axis"], []
            for one, shift, shape in zip(x, node["shifts"], shapes, strict=True):
                merged = one.merged(axis)
                pairs = merged.pairs if merged.shape[axis] > 1 else merged.pairs * shape[axis]
                found += [(low << shift, high << shift) for low, high in pairs]
            return Pairs(tuple(len(found) if d == axis else 1 for d in range(rank)), found)
        case "multiply":
            shape = tuple(max(sizes) for sizes in zip(*(one.shape for one in x), strict=True))
            found = []
            for at in itertools.product(*map(range, shape)):
                products = [a * b for a in x[0].at(at) for b in x[1].at(at)]
                found.append((min(products), max(products)))
            return Pairs(shape, found)
        case "flatten" | "reshape":
            if len(x[0].pairs) == 1:
                return Pairs((1,) * rank, x[0].pairs)
            found = [x[0].at(at) for at in itertools.product(*map(range, shapes[0]))]
            return Pairs(tuple(node["output"]["shape"]), found)
        case "permute":
            shape = tuple(x[0].shape[d] for d in node["order"])
            places = {d: position for position, d in enumerate(node["order"])}
            found = [x[0].at(tuple(at[places[d]] for d in range(rank))) for at in itertools.product(*map(range, shape))]
            return Pairs(shape, found)
        case "gather":
            axis, indices = node["axis"], tensors[f"{place}.indices"].tolist()
            if x[0].shape[axis] == 1 and -1 not in indices:
                return x[0]
            shape = tuple(len(indices) if d == axis else n for d, n in enumerate(x[0].shape))
            found = []
            for at in itertools.product(*map(range, shape)):
                index = indices[at[axis]]
                source = (*at[:axis], index, *at[axis + 1 :])
                found.append((node["fill"],) * 2 if index < 0 else x[0].at(source))
            return Pairs(shape, found)
        case "output":
            return x[0]
    raise NotImplementedError(node["operation"])


def bounds(data: bytes) -> tuple[list[dict[str, Any]], dict[str, Pairs]]:
    """The nodes of a file and the bounds of their outputs."""
    (length,) = struct.unpack("<Q", data[:8])
    document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["maqd"])
    tensors = load_safetensors(data)
    found: dict[str, Pairs] = {}
    shapes: dict[str, list[int]] = {}
    for place, node in enumerate(document["nodes"]):
        sources = node["inputs"]
        found[node["name"]] = derive(node, [found[s] for s in sources], [shapes[s] for s in sources], tensors, place)
        shapes[node["name"]] = node["output"]["shape"]
    return document["nodes"], found


GRAPHS_AND_FILES = [graphs.every_node(), *random_graphs(GRAPHS)]


def test_the_page_gives_the_bounds_that_files_store():
    for graph in GRAPHS_AND_FILES:
        nodes, found = bounds(container.to_bytes(graph))
        for node in nodes:
            assert found[node["name"]].all == (node["output"]["low"], node["output"]["high"]), node


@pytest.mark.parametrize("graph", GRAPHS_AND_FILES[:20])
def test_every_code_is_within_its_bounds(graph: Graph):
    _, found = bounds(container.to_bytes(graph))
    given = inputs.prepare(graph, *inputs.random(graph, 4))
    for name, values in interpreter.layers(graph, *given.codes):
        pairs = found[name]
        low, high = (np.array([pair[end] for pair in pairs.pairs]).reshape(pairs.shape) for end in (0, 1))
        assert (values >= low).all()
        assert (values <= high).all()


def test_the_page_defines_the_bounds_of_every_node():
    section = PAGE.read_text().partition("\n## Bounds\n")[2].partition("\n## ")[0]
    missing = [kind.operation for kind in NODES if f"`{kind.operation}`" not in section]
    assert missing == []
