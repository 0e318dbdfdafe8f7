"""One voxel, drawn: its cell, centre and corner, what it weighs, and three ways to say where it is.

All places come from `medil.grid.Grid`, so the drawing cannot disagree with the code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from medil.grid import Grid
from medil.plots import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RULERS = {"index": "index i", "mm": "R (mm)", "norm": "normalised c"}


def one_voxel(grid: Grid, index: int = 1) -> Figure:
    """A row of voxels along the first axis, one of them marked, over three rulers.

    Above, the weight with which a place counts in the marked voxel: its cell, alike. Dashed, a
    Gaussian of the same width at half its height, nearer to what a scanner does.
    """
    figure, axes = panels(2, 1, panel_in=(5.2, 2.2))
    weight, row = axes[:, 0]
    _draw_weight(weight, grid, index)
    _draw_row(row, grid, index)
    for ax in (weight, row):
        ax.set_xlim(*_face_mm(grid, _ends(grid)))
    return figure


def _face_mm(grid: Grid, indices: Any) -> np.ndarray:
    """R in mm of places along the first axis, by index."""
    return np.array([grid.index_to_ras((i, 0, 0))[0] for i in indices])


def _ends(grid: Grid) -> tuple[float, float]:
    """What is shown, by index: all voxels, and room for words before them."""
    return -1.8, grid.shape[0] - 0.3


def _draw_weight(ax: Any, grid: Grid, index: int) -> None:
    low, high = _face_mm(grid, (index - 0.5, index + 0.5))
    centre, width = (low + high) / 2, high - low
    first, last = _face_mm(grid, _ends(grid))
    x = np.linspace(first, last, 400)
    sigma = width / (2 * math.sqrt(2 * math.log(2)))
    gauss = np.exp(-((x - centre) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    ax.step([x[0], low, high, x[-1]], [0, 1 / width, 0, 0], where="post", color=COLOURS[0], lw=2)
    ax.fill_between([low, high], 1 / width, color=COLOURS[0], alpha=0.15)
    ax.plot(x, gauss, "--", color=COLOURS[1], lw=1.4)
    ax.set(ylabel="weight (1/mm)", ylim=(0, None), title="point spread: what counts in the voxel")
    ax.annotate("a mean over the cell", (high, 0.8 / width), (6, 0), textcoords="offset points",
                color=COLOURS[0], fontsize=9)  # fmt: skip
    ax.annotate("Gaussian, as wide", (high, 0.62 / width), (6, 0), textcoords="offset points",
                color=COLOURS[1], fontsize=9)  # fmt: skip
    ax.tick_params(bottom=False, labelbottom=False)


def _draw_row(ax: Any, grid: Grid, index: int) -> None:
    faces = _face_mm(grid, np.arange(grid.shape[0] + 1) - 0.5)
    centres = _face_mm(grid, range(grid.shape[0]))
    ax.vlines(faces, 0, 1, color="0.45", lw=1)
    ax.hlines([0, 1], faces[0], faces[-1], color="0.45", lw=1)
    ax.fill_between(faces[index : index + 2], 1, color=COLOURS[0], alpha=0.15)
    ax.plot(centres, np.full(len(centres), 0.5), "o", color=COLOURS[0], ms=6)
    ax.plot(faces[0], 0, "s", color=COLOURS[1], ms=8, clip_on=False)
    ax.annotate("centre", (centres[index], 0.5), (0, 8), textcoords="offset points", ha="center")
    ax.annotate("corner of\nthe box", (faces[0], 0), (-9, 0), textcoords="offset points",
                color=COLOURS[1], ha="right")  # fmt: skip
    ax.annotate("cell", (centres[index], 1), (0, 4), textcoords="offset points", ha="center")
    ax.set(ylim=(0, 1.3), yticks=[])
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(bottom=False, labelbottom=False)
    places = np.sort(np.concatenate([faces, centres]))
    for n, name in enumerate(RULERS):
        _ruler(ax, grid, places, name, -0.34 * (n + 1))


def _ruler(ax: Any, grid: Grid, places: np.ndarray, name: str, height: float) -> None:
    """One line of numbers under faces and centres: the same places in one coordinate."""
    for x in places:
        index = _index(grid, x)
        value = {"index": index, "mm": x, "norm": grid.index_to_norm((index, 0, 0))[0]}[name]
        face = abs(index % 1 - 0.5) < 1e-6
        look = {"color": "0.45"} if face else {"color": COLOURS[0], "weight": "bold"}
        text = f"{value:g}".replace("-", "−")
        ax.text(x, height, text, ha="center", va="center", fontsize=8, **look)
    ax.text(2 * places[0] - places[1], height, RULERS[name], fontsize=8, ha="right", va="center")


def _index(grid: Grid, x_mm: float) -> float:
    """The index along the first axis of a place on its centre line."""
    on_line = grid.index_to_ras((0, 0, 0))
    on_line[0] = x_mm
    return round(float(grid.ras_to_index(on_line)[0]), 9)
