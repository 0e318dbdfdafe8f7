"""Figures of the pages on sampling: loss curves, a viewer of slices, control, blur."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from eval.generation.page import untrained
from medil.diffusion.flow import FLOOR
from medil.plots import COLOURS, PLANES, panels
from medil.volume import Volume

PIXEL_MM = 0.8  # of the viewer's pictures
GAP = 6  # pixels between its panels


def loss_curve(share: np.ndarray, losses: Sequence[float]):
    """A training loss and two that need no training, running means over 1/12 of the steps.

    `share` holds the [steps, batch] times 0 ... 1 of each step.
    """
    figure, axes = panels(1, 1, panel_in=(6.0, 3.2))
    ax, width = axes[0, 0], max(1, len(losses) // 12)
    kinds = {
        "the training": (np.asarray(losses), COLOURS[0], "-"),
        "every number by itself": (untrained(share).mean(1), COLOURS[2], ":"),
        "always the mean head": ((np.maximum(share, FLOOR) ** -2).mean(1), COLOURS[1], "--"),
    }
    ax.plot(losses, ".", color="0.75", ms=4)
    for name, (values, colour, style) in kinds.items():
        mean = np.convolve(values, np.ones(width) / width, "valid")
        ax.plot(np.arange(len(mean)) + width / 2, mean, style, color=colour, lw=2, label=name)
    ax.set(xlabel="step", ylabel="loss, each number", xlim=(0, len(losses)), ylim=(0, None))
    ax.legend(frameon=False)
    return figure


# A viewer: one slider through several volumes


def slices_viewer(
    volumes: Mapping[str, Volume],
    window: tuple[float, float],
    plane: str = "coronal",
    frames: int = 25,
    alt: str = "",
) -> Any:
    """A slider through volumes on any grids, every panel cut at the same place in mm.

    It is a page's own: pictures inside the page, a range input and a line of script.

    Args:
        volumes: Title -> volume; the first one's box is shown.
        window: Intensities shown black and white.
        plane: sagittal, coronal or axial.
        frames: Cuts, evenly between the middle eight tenths of the first box.
        alt: What the pictures show, for readers who do not see them.

    Returns:
        An `IPython.display.HTML`.
    """
    from IPython.display import HTML

    grid, cut = next(iter(volumes.values())).grid, PLANES[plane].cut
    half_mm = 0.4 * grid.extent_mm[cut]
    places_mm = grid.centre_mm[cut] + np.linspace(-half_mm, half_mm, frames)
    pictures = [_jpeg(frame(volumes, plane, mm, window)) for mm in places_mm]
    titles = "".join(f"<span style='flex:1'>{escape(title)}</span>" for title in volumes)
    middle, labels = frames // 2, [f"{mm:.0f} mm" for mm in places_mm]
    script = (
        "var f=this.closest('figure');f.querySelector('img').src="
        "JSON.parse(f.dataset.frames)[this.value];"
        "f.querySelector('output').textContent=JSON.parse(f.dataset.places)[this.value]"
    )
    return HTML(
        f"<figure data-frames='{json.dumps(pictures)}' data-places='{json.dumps(labels)}'>"
        f"<div style='display:flex;text-align:center'>{titles}</div>"
        f"<img src='{pictures[middle]}' alt='{escape(alt, quote=True)}' style='width:100%'>"
        f"<label>{plane} cut <input type='range' min='0' max='{frames - 1}' value='{middle}' "
        f'style="width:60%" oninput="{script}"></label> <output>{labels[middle]}</output></figure>'
    )


def frame(
    volumes: Mapping[str, Volume], plane: str, place_mm: float, window: tuple[float, float]
) -> np.ndarray:
    """One picture of the viewer: [height, width] uint8, volumes side by side, black outside.

    `place_mm` lies along the axis that the plane cuts (RAS mm).
    """
    grid = next(iter(volumes.values())).grid
    cut, across, up = PLANES[plane]
    axes_mm = [
        grid.centre_mm[a] + np.arange(-grid.extent_mm[a] / 2, grid.extent_mm[a] / 2, PIXEL_MM)
        for a in (across, up)
    ]
    points_mm = np.empty((len(axes_mm[1]), len(axes_mm[0]), 3))
    points_mm[..., cut] = place_mm
    points_mm[..., across], points_mm[..., up] = axes_mm[0], axes_mm[1][::-1, None]
    shown = [_nearest(volume, points_mm) for volume in volumes.values()]
    low, high = window
    grey = [np.clip(255 * (values - low) / (high - low), 0, 255) for values in shown]
    gap = np.full((len(axes_mm[1]), GAP), 255.0)
    parts = [part for values in grey for part in (values, gap)][:-1]
    return np.concatenate(parts, axis=1).astype(np.uint8)


def _nearest(volume: Volume, points_mm: np.ndarray) -> np.ndarray:
    index = np.floor(volume.grid.ras_to_index(points_mm) + 0.5).astype(int)
    top = np.asarray(volume.grid.shape) - 1
    inside = ((index >= 0) & (index <= top)).all(-1)
    i, j, k = np.moveaxis(np.clip(index, 0, top), -1, 0)
    return np.where(inside, volume.data.numpy()[i, j, k], 0.0)


def _jpeg(picture: np.ndarray) -> str:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


# Control and blur


def request_lines(found: pd.DataFrame, attribute: str, unit: str):
    """Requested against measured values, one line per guidance weight; dashed: as requested."""
    figure, axes = panels(1, 1, panel_in=(4.4, 3.4))
    ax = axes[0, 0]
    requested = found["requested"].map(lambda one: one[attribute])
    got = found["measured"].map(lambda one: one[attribute])
    ends = [min(requested.min(), got.min()), max(requested.max(), got.max())]
    ax.plot(ends, ends, "--", color="0.5", lw=1, label="as requested")
    for colour, (guidance, lines) in zip(COLOURS, found.groupby("guidance"), strict=False):
        at = lines.index
        ax.plot(requested[at], got[at], "o-", color=colour, ms=5, label=f"guidance {guidance:g}")
    ax.set(xlabel=f"{attribute} requested ({unit})", ylabel=f"measured ({unit})")
    ax.legend(frameon=False)
    return figure


def blur_curves(curves: Mapping[str, pd.DataFrame]):
    """Two measures of variety against blur, each relative to its value without blur.

    `curves` maps a set to sigma_mm, ms_ssim and shape. Left: 1 - MS-SSIM; right: spread of shapes.
    """
    figure, axes = panels(1, 2, panel_in=(3.7, 3.0))
    for colour, (name, lines) in zip(COLOURS, curves.items(), strict=False):
        for ax, values in zip(axes[0], (1 - lines["ms_ssim"], lines["shape"]), strict=True):
            ax.plot(lines["sigma_mm"], values / values.iloc[0], "o-", color=colour, label=name)
    top = max(line.get_ydata().max() for ax in axes[0] for line in ax.lines)
    for ax, title in zip(axes[0], ("by MS-SSIM: 1 - MS-SSIM", "by shape: spread"), strict=True):
        ax.axhline(1, color="#777777", lw=1, ls=":")
        ax.set(xlabel="blur, σ (mm)", ylim=(0, 1.1 * max(1.0, top)), title=title)
    axes[0, 0].set_ylabel("variety (unblurred: 1)")
    axes[0, 0].legend(frameon=False, loc="lower left")
    return figure
