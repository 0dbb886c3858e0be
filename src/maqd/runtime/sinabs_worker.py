"""Runs a NIR file in sinabs, in an environment of its own: `python -P sinabs_worker.py FOLDER`.

The folder holds model.nir and samples.npy; found.npz is written: what each node sent.
"""

import sys
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any


def in_order(nodes: Sequence[Any], edges: Sequence[tuple[str, str]]) -> list[Any]:
    """Nodes of a module that nirtorch's `load` made, each after all those that it reads.

    nirtorch 2.6 goes depth first, and so computes a sum of several edges when the first of them has arrived.

    Args:
        nodes: `execution_order` of the module.
        edges: Those of the `nir.NIRGraph`.
    """
    by_name = {node.name: node for node in nodes}
    sources: dict[str, list[str]] = {name: [] for name in by_name}
    for source, target in edges:
        sources[target].append(source)
    return [by_name[name] for name in TopologicalSorter(sources).static_order()]


def main(folder: Path) -> None:
    """Read, run, write."""
    import nir  # pyright: ignore[reportMissingImports]
    import numpy as np
    import sinabs.nir as sinabs  # pyright: ignore[reportMissingImports]
    import torch

    samples = torch.from_numpy(np.load(folder / "samples.npy"))
    graph = nir.read(str(folder / "model.nir"))
    module = sinabs.from_nir(graph, num_timesteps=1)
    module.execution_order = in_order(module.execution_order, graph.edges)
    found: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _given: Any, sent: Any) -> None:
            found[name] = sent.detach().numpy()

        return hook

    for name, one in module.named_modules():
        if name in graph.nodes:
            one.register_forward_hook(keep(name))
    with torch.no_grad():
        module(samples)
    np.savez(folder / "found.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
