"""A picture of what networks cost and what they lose."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maqd.io.pictures import save_png

Place = tuple[float, float]
"""A cost and a rise of the loss."""


def draw(
    front: Sequence[Place], even: Sequence[tuple[str, Place]], chosen: Place | None, *, unit: str, path: Path
) -> None:
    """Save a PNG.

    Args:
        front: Mixtures, costs ascending.
        even: Networks with the same states everywhere: a label and their place.
        chosen: The mixture that was asked for.
        unit: Of the cost.
        path: The file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis: Any = figure.subplots()
    axis.step(*zip(*front, strict=True), where="post", label="states of each layer chosen")
    axis.plot([x for _, (x, _) in even], [y for _, (_, y) in even], "s", ms=4, label="the same states everywhere")
    for label, place in even:
        axis.annotate(label, place, (4, 3), textcoords="offset points", fontsize=7)
    if chosen is not None:
        axis.plot(*chosen, "*", ms=13, label="for this budget")
    axis.set_xscale("log")
    axis.set_xlabel(unit)
    axis.set_ylabel("rise of the loss before training")
    axis.grid(alpha=0.3)
    axis.legend()
    save_png(path, figure)
