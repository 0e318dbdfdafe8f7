"""Pictures of this experiment: one bridge close up, guards, calibration, where a map lights up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from eval.false_gyri.arms import GUARDS
from eval.false_gyri.blocks import ASKED, Block
from eval.false_gyri.page import SHOWN_MM, Bridge
from eval.false_gyri.report import (
    BAR,
    MOST_COST_DB,
    NAMES,
    chosen,
    effect,
    factor,
    groups,
    heads_of,
    reliability,
)
from eval.false_gyri.score import SURFACES
from medil.errors import needs
from medil.grid import Grid
from medil.plots import COLOURS, PLANES, draw_plane, panels
from medil.volume import Volume

FALSE, TRUE = COLOURS[1], COLOURS[4]  # vermilion, orange
AROUND_MM = SHOWN_MM
WINDOW = (0.0, 1.1)


def planes(block: Block, voxels: str, shown: Mapping[str, np.ndarray], bridge: Bridge):
    """A bridge in three planes: a row for the truth and each rendering, the border as a line.

    The line is each image's own surface; the bridge's voxels are coloured in renderings.
    """
    grid = block.truths[voxels].grid
    border = block.borders[SURFACES.index(bridge.surface)]
    rows = {"truth": block.truths[voxels].data.double().numpy(), **shown}
    figure, axes = panels(len(rows), 3, panel_in=(2.4, 2.5))
    for line, (title, data) in zip(axes, rows.items(), strict=True):
        for ax, plane in zip(line, PLANES, strict=True):
            draw_plane(ax, _volume(data, grid), plane, bridge.middle_mm, WINDOW)
            if title != "truth":
                _overlay(ax, bridge.where & (data > border), grid, plane, bridge.middle_mm)
            _outline(ax, data, grid, plane, bridge.middle_mm, border)
            _zoom(ax, plane, bridge.middle_mm)
            ax.set_title(f"{title}, {plane}", fontsize=9)
            if plane != "axial":  # its vertical axis is not that of the others
                ax.label_outer()
            elif ax not in axes[-1]:
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
    return figure


def surfaces(block: Block, voxels: str, shown: Mapping[str, np.ndarray], bridge: Bridge):
    """The same place in 3-D: surfaces of the truth and of renderings, the bridge coloured."""
    with needs("plots", "pictures need matplotlib"):
        from matplotlib import pyplot
    grid = block.truths[voxels].grid
    border = block.borders[SURFACES.index(bridge.surface)]
    rows = {"truth": block.truths[voxels].data.double().numpy(), **shown}
    figure = pyplot.figure(figsize=(3.6 * len(rows), 3.4), layout="constrained")
    box = _box(grid, bridge.middle_mm)
    view = _side_of(bridge, block.truths[voxels], border)
    for number, (title, data) in enumerate(rows.items(), start=1):
        ax = figure.add_subplot(1, len(rows), number, projection="3d")
        false = bridge.where & (title != "truth")
        _surface(ax, data[box], border, grid.spacing_mm[0], false[box])
        ax.view_init(*view)
        ax.set_title(title, fontsize=10, y=-0.1)
    pyplot.close(figure)
    return figure


def _side_of(bridge: Bridge, truth: Volume, border: float) -> tuple[float, float]:
    """Elevation and azimuth in degrees of a look at the bridge from the emptiest side."""
    grid = truth.grid
    offsets = np.stack(np.meshgrid(*[np.linspace(-8, 8, 9)] * 3, indexing="ij"), -1).reshape(-1, 3)
    index = np.rint(grid.ras_to_index(bridge.middle_mm + offsets)).astype(int)
    inside = ((index >= 0) & (index < np.array(grid.shape))).all(1)
    values = truth.data.numpy()[tuple(index[inside].T)]
    outwards = offsets[inside][values <= border].mean(0) if (values <= border).any() else np.ones(3)
    flat_mm = np.hypot(*outwards[:2])
    return (
        float(np.degrees(np.arctan2(outwards[2], flat_mm))),
        float(np.degrees(np.arctan2(outwards[1], outwards[0]))),
    )


def _surface(ax, data: np.ndarray, border: float, mm: float, false: np.ndarray) -> None:
    from matplotlib.colors import LightSource, to_rgb
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]
    from scipy import ndimage
    from skimage.measure import marching_cubes

    corners, faces, _, _ = marching_cubes(data, border)
    middles = np.rint(corners[faces].mean(1)).astype(int)
    near = ndimage.binary_dilation(false)[tuple(middles.T)]
    colours = np.where(near[:, None], to_rgb(FALSE), to_rgb("#BBBBBB"))
    edges = corners[faces]
    normals = np.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    light = 0.55 + 0.45 * np.abs(normals @ LightSource(azdeg=225, altdeg=40).direction)
    shaded = colours * light[:, None]
    ax.add_collection3d(Poly3DCollection(edges * mm, facecolors=shaded, edgecolors=shaded, lw=0.2))
    for name, n in zip("xyz", data.shape, strict=True):
        getattr(ax, f"set_{name}lim")(0, n * mm)
    ax.set_box_aspect(data.shape)
    ax.set(xlabel="R (mm)", ylabel="A (mm)", zlabel="S (mm)")


def lights(block: Block, voxels: str, shown: np.ndarray, predicted: np.ndarray, bridge: Bridge):
    """The rendering, its error and the predicted error in the plane of a bridge, outlined."""
    grid = block.truths[voxels].grid
    error = np.abs(shown - block.truths[voxels].data.double().numpy())
    limit = float(np.percentile(error[block.inside(voxels)], 99.5))
    figure, axes = panels(1, 3, panel_in=(2.9, 3.0))
    images = {
        "rendering": (shown, WINDOW, "gray"),
        "error": (error, (0.0, limit), "magma"),
        "predicted error": (predicted, (0.0, limit), "magma"),
    }
    for ax, (title, (data, window, colours)) in zip(axes[0], images.items(), strict=True):
        drawn = draw_plane(ax, _volume(data, grid), "axial", bridge.middle_mm, window, colours)
        _outline(ax, bridge.where.astype(float), grid, "axial", bridge.middle_mm, 0.5, "#56B4E9")
        _zoom(ax, "axial", bridge.middle_mm)
        ax.set_title(title)
        ax.label_outer()
    figure.colorbar(
        drawn, ax=axes[0, 1:], shrink=0.7, label="intensity (white matter is about 0.9)"
    )
    return figure


PERCENT = (10, 20, 50, 100, 200, 500, 1000, 2000)  # on a logarithmic axis


def trade_off(frame: pd.DataFrame):
    """Every guard: what is left of the invented topology against the change of PSNR.

    Whiskers are 95 % intervals over judged heads; the grey corner is the bar.
    """
    heads, best = heads_of(frame, False), chosen(frame)
    figure, axes = panels(1, len(ASKED), panel_in=(3.6, 3.6))
    for ax, condition in zip(axes[0], ASKED, strict=True):
        ax.axhspan(0, BAR, xmin=0, color="#EEEEEE", zorder=0)
        ax.axvline(-MOST_COST_DB, color="#777777", lw=0.8, ls=":")
        ax.axhline(100, color="#777777", lw=0.8)
        for number, guard in enumerate(GUARDS):
            found = effect(heads, guard, condition)
            if not found:
                continue
            colour = COLOURS[number % len(COLOURS)]
            mark = "*" if guard == best else "os"[number // len(COLOURS)]
            at = found.gain_db, found.left
            ax.plot(*at, mark, color=colour, ms=12 if guard == best else 6, label=NAMES[guard])
            ax.plot([at[0]] * 2, [found.low, found.high], color=colour, lw=1)
        ax.set(xlabel="change of PSNR (dB)", yscale="log")
        low, high = ax.get_ylim()
        ticks = [t for t in PERCENT if low <= t <= high]
        ax.set_yticks(ticks, [f"{t:,}" for t in ticks])
        ax.set_yticks([], minor=True)
        ax.set_title(f"{condition.split(' -> ')[1]} mm", loc="left")
    axes[0, 0].set_ylabel("false topology left (%)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def calibration(frame: pd.DataFrame, which: str):
    """Predicted against measured RMS error, ten bins a group, one scale for all."""
    scale = factor(frame, which)
    figure, axes = panels(1, 1, panel_in=(4.2, 4.2))
    ax = axes[0, 0]
    for colour, (name, rows) in zip(COLOURS, groups(frame).items(), strict=False):
        bins = reliability(rows, which, scale)
        if len(bins):
            n = rows["subject"].nunique()
            ax.loglog(
                bins["predicted"],
                bins["measured"],
                "o-",
                color=colour,
                ms=4,
                label=f"{name} (n = {n})",
            )
    ends = np.array([*ax.get_xlim(), *ax.get_ylim()])
    ax.plot([ends.min(), ends.max()], [ends.min(), ends.max()], color="#777777", lw=0.8)
    ax.set(xlabel="predicted RMS error (intensity)", ylabel="measured RMS error (intensity)")
    ax.legend(frameon=False, fontsize=8)
    return figure


def _volume(data: np.ndarray, grid: Grid) -> Volume:
    return Volume(torch.from_numpy(np.ascontiguousarray(data)), grid)


def _slice(data: np.ndarray, grid: Grid, plane: str, point_mm: np.ndarray) -> np.ndarray:
    cut = PLANES[plane].cut
    return np.take(data, int(np.rint(grid.ras_to_index(point_mm)[cut])), axis=cut)


def _extent(grid: Grid, plane: str) -> list[float]:
    return grid.bounds_mm.T[[PLANES[plane].across, PLANES[plane].up]].ravel().tolist()


def _overlay(ax, where: np.ndarray, grid: Grid, plane: str, point_mm: np.ndarray) -> None:
    from matplotlib.colors import to_rgba

    here = _slice(where, grid, plane, point_mm)
    colours = np.zeros((*here.shape, 4))
    colours[here] = to_rgba(FALSE, 0.85)
    extent = _extent(grid, plane)
    ax.imshow(colours.transpose(1, 0, 2), extent=extent, origin="lower", interpolation="nearest")


def _outline(
    ax, data: np.ndarray, grid: Grid, plane: str, point_mm: np.ndarray, level: float,
    colour: str = TRUE,
) -> None:  # fmt: skip
    first_mm = grid.index_to_ras(np.zeros(3))
    axes = PLANES[plane].across, PLANES[plane].up
    places_mm = [first_mm[axis] + grid.axis_offsets_mm(axis, grid) for axis in axes]
    here = _slice(data, grid, plane, point_mm).T
    if here.min() < level < here.max():
        ax.contour(*places_mm, here, [level], colors=colour, linewidths=1.0)


def _zoom(ax, plane: str, point_mm: np.ndarray, around_mm: float = AROUND_MM) -> None:
    across, up = PLANES[plane].across, PLANES[plane].up
    ax.set_xlim(point_mm[across] - around_mm, point_mm[across] + around_mm)
    ax.set_ylim(point_mm[up] - around_mm, point_mm[up] + around_mm)


def _box(grid: Grid, point_mm: np.ndarray, around_mm: float = AROUND_MM * 0.75):
    index = grid.ras_to_index(point_mm)
    half = around_mm / np.array(grid.spacing_mm)
    low = np.clip(np.floor(index - half), 0, None).astype(int)
    high = np.minimum(np.ceil(index + half) + 1, grid.shape).astype(int)
    return tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
