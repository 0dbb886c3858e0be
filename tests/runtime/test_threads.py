"""One engine for many threads of Python: the same integers, whatever they do at the same time."""

import pickle
import threading
from pathlib import Path

import graphs
import numpy as np
import pytest

import maqd
from maqd.graph import container
from maqd.runtime import NumpyEngine

THREADS, CALLS = 8, 12


@pytest.mark.parametrize("threads", [1, 2])
def test_eight_threads_use_one_engine(tmp_path: Path, threads: int):
    """Runs, tensors, profiles and copies at once, of batches of several sizes, with weights released and read again."""
    graph = graphs.every_node()
    path = tmp_path / "m.maqd"
    container.save(graph, path)
    engine = maqd.load(path, engine="native", threads=threads)
    batches = [graphs.images(graph, size) for size in (1, 2, 7, 33)]
    expected = [NumpyEngine(graph).run(batch) for batch in batches]
    layers = dict(NumpyEngine(graph).layers(batches[1]))
    barrier = threading.Barrier(THREADS)
    faults: list[str] = []

    def work(number: int) -> None:
        try:
            barrier.wait()
            for call in range(CALLS):
                at = (number + call) % len(batches)
                if not np.array_equal(engine.run(batches[at]), expected[at]):
                    faults.append(f"thread {number}: another result for batch {at}")
                if call % 4 == number % 4:
                    container.release(engine.graph)
                    for name, codes in engine.layers(batches[1]):
                        if not np.array_equal(codes, layers[name]):
                            faults.append(f"thread {number}: another tensor {name}")
                if call == number:
                    twin = pickle.loads(pickle.dumps(engine))
                    if not np.array_equal(twin.run(batches[at]), expected[at]):
                        faults.append(f"thread {number}: another result of a copy")
        except Exception as error:
            faults.append(f"thread {number}: {type(error).__name__}: {error}")

    workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not any(worker.is_alive() for worker in workers)
    assert faults == []
