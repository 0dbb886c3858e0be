"""A picture of a spiking network: who fires when, and what free-running neurons make of more steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.graph import interpreter
from maqd.io.pictures import save_png
from maqd.optional import require
from maqd.spiking.network import SpikingNetwork
from maqd.spiking.neurons import LOSSLESS, Dynamics
from maqd.spiking.simulation import Simulation, default_steps, run_free
from maqd.spiking.summary import compare

SHOWN = 48
"""Neurons of each activation in a raster."""
FACTORS = (1, 2, 3, 4, 6, 8)
"""Steps of a sweep, in units of `default_steps`."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Free-running neurons over some steps.

    Args:
        steps: T.
        wrong: For each activation the share of counts that do not stand for the graph's state.
        same: Share of samples whose largest output is the graph's.
        right: Share of samples whose largest output is their label; None without labels.
    """

    steps: int
    wrong: dict[str, float]
    same: float
    right: float | None


def sweep(
    network: SpikingNetwork,
    *codes: NDArray[np.int64],
    dynamics: Dynamics = LOSSLESS,
    labels: NDArray[np.integer] | None = None,
) -> tuple[Point, ...]:
    """Free-running neurons over more and more steps.

    Args:
        network: The network.
        codes: One array an input, as `run_free` takes them.
        dynamics: Reset and leak.
        labels: Class of each sample, of a network with one output.
    """
    wanted = [_largest(value) for value in interpreter.run(network.graph, *codes)]
    points = []
    for factor in FACTORS:
        steps = factor * default_steps(network)
        simulation = run_free(network, *codes, steps=steps, dynamics=dynamics)
        rows = compare(network, simulation, *codes)
        agree = [
            _largest(simulation.tensors[node.name]) == largest
            for node, largest in zip(network.graph.outputs, wanted, strict=True)
        ]
        found = _largest(simulation.tensors[network.graph.outputs[0].name])
        points.append(
            Point(
                steps=steps,
                wrong={row.name: row.wrong / row.values for row in rows if row.spikes is not None},
                same=float(np.logical_and.reduce(agree).mean()),
                right=None if labels is None else float((found == labels).mean()),
            )
        )
    return tuple(points)


def draw(path: Path, network: SpikingNetwork, simulation: Simulation, points: Sequence[Point], *, title: str) -> None:
    """Save the picture as PNG: a raster of the first sample, wrong counts, classes and accuracy against the steps.

    Args:
        path: The file.
        network: The network.
        simulation: What it did.
        points: From `sweep`.
        title: Over the raster.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    require("matplotlib", "a picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplot_mosaic([["raster", "wrong"], ["raster", "same"]], width_ratios=(1.5, 1))
    _raster(axes["raster"], simulation, title)
    for name in points[0].wrong:
        axes["wrong"].plot([one.steps for one in points], [100 * one.wrong[name] for one in points], "o-", label=name)
    axes["wrong"].set_title("free-running: counts that are not the graph's state")
    axes["wrong"].set_ylabel("% of neurons")
    axes["wrong"].legend(fontsize=8)
    shares = {"same largest output as the graph": [one.same for one in points]}
    right = [one.right for one in points if one.right is not None]
    shares |= {"accuracy": right} if right else {}
    for name, style in zip(shares, ("o-", "s--"), strict=False):
        values = [100 * share for share in shares[name]]
        axes["same"].plot([one.steps for one in points], values, style, color="black", label=name)
    axes["same"].legend(fontsize=8, loc="lower right")
    axes["same"].set_title("free-running: largest outputs")
    axes["same"].set_ylabel("% of samples")
    for name in ("wrong", "same"):
        axes[name].set_xlabel("steps T")
        axes[name].grid(alpha=0.3)
        axes[name].set_ylim(bottom=0)
    axes["same"].set_ylim(0, 105)
    save_png(path, figure)


def _raster(axis: Any, simulation: Simulation, title: str) -> None:
    """Spikes of some neurons of each activation."""
    base, ticks, names = 0, [], []
    for place, (name, activity) in enumerate(simulation.activities.items()):
        spikes = activity.spikes[:, 0].reshape(simulation.steps, -1)
        chosen = np.linspace(0, spikes.shape[1] - 1, min(SHOWN, spikes.shape[1])).astype(int)
        steps, neurons = np.nonzero(spikes[:, chosen])
        axis.vlines(steps, base + neurons - 0.45, base + neurons + 0.45, color=f"C{place % 10}", linewidth=3)
        axis.axhline(base + len(chosen), color="lightgray", linewidth=0.8)
        ticks.append(base + len(chosen) / 2)
        names.append(f"{name}\n{len(chosen)} of {spikes.shape[1]:,} shown\n{int(spikes.sum()):,} spikes")
        base += len(chosen) + 1
    axis.set_yticks(ticks, names, fontsize=8)
    axis.set_xlim(-0.5, simulation.steps - 0.5)
    axis.set_ylim(-1, base)
    axis.invert_yaxis()
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("step")
    axis.set_title(title)


def _largest(values: NDArray[np.int64]) -> NDArray[np.intp]:
    return values.reshape(len(values), -1).argmax(1)
