"""Calls of the Python interface with something else than they take: one error of the package, with a remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
import torch

import maqd
from maqd.errors import MaqdError
from maqd.runtime import ENGINES, NumpyEngine

NETWORK = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))
DATA = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

CALLS: dict[str, Callable[[], Any]] = {
    "convert a function": lambda: maqd.convert(lambda x: x, DATA),
    "convert nothing": lambda: maqd.convert(None, DATA),
    "convert halves": lambda: maqd.convert(NETWORK, DATA.half()),
    "convert integers": lambda: maqd.convert(NETWORK, DATA.long()),
    "convert bytes that nothing converts": lambda: maqd.convert(NETWORK, DATA.to(torch.uint8)),
    "convert with batches of nothing": lambda: maqd.convert(NETWORK, DATA, calibrate=[None]),
    "convert with batches of two forms": lambda: maqd.convert(NETWORK, DATA, calibrate=[DATA, DATA[:, :, :4]]),
    "convert with one batch more": lambda: maqd.convert(NETWORK, DATA, calibrate=[(DATA, DATA), (DATA,)]),
    "convert with an example too many": lambda: maqd.convert(NETWORK, (DATA, DATA)),
    "lower nothing": lambda: maqd.lower(None, DATA),  # pyright: ignore[reportArgumentType]
    "lower with an array": lambda: maqd.lower(NETWORK, DATA.numpy()),  # pyright: ignore[reportArgumentType]
    "lower with a list": lambda: maqd.lower(NETWORK, [DATA]),  # pyright: ignore[reportArgumentType]
    "check nothing": lambda: maqd.check(None, DATA),  # pyright: ignore[reportArgumentType]
    **{
        f"classify the best {top}": lambda top=top: NumpyEngine(graphs.every_node()).classify(
            graphs.images(graphs.every_node(), 1), top=top
        )
        for top in (0, -1, 1.5, True)
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_is_refused_with_a_remedy(name: str):
    with pytest.raises(MaqdError, match=r"; (pass|use|change|put)"):
        CALLS[name]()


@pytest.mark.parametrize("name", ["numpy", "native", "onnxruntime", "c99"])
def test_no_samples_give_no_results(name: str):
    graph = graphs.every_node()
    engine = ENGINES[name].make(graph)
    none = graphs.images(graph, 1)[:0]
    assert engine.run(none).shape == (0, *graph.types[graph.output.name].shape)
    assert engine.classify(none) == []


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_path_without_a_name_is_no_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError):
        maqd.save(graphs.every_node(), name)
    assert np.array_equal(list(tmp_path.iterdir()), [])
