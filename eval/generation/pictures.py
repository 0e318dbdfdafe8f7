"""Pictures of sampled heads: beside real ones, a viewer of slices, control, blur, training."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import torch

from eval.generation import parts
from eval.generation.arms import ALIKE, ANATOMY, ARMS, IMAGE
from eval.generation.page import untrained
from eval.generation.report import NAMES, agreement, control_pairs, wide
from medil.plots import COLOURS, PLANES, draw_plane, panels
from medil.synth.attributes import ATTRIBUTES
from medil.synth.box import box_grid
from medil.volume import Volume

POINT_MM = (4.0, 0.0, 4.0)  # beside the midplane, through the lateral ventricles
WINDOW = (0.0, 1.0)
PIXEL_MM = 0.8  # of the viewer's pictures
GAP = 6  # pixels between its panels


# Of recorded rows


def montage(volumes: Mapping[str, np.ndarray]):
    """Heads (title to [D, H, W], 2 mm, 0 ... 1) side by side in three planes through one point."""
    figure, axes = panels(3, len(volumes), panel_in=(2.1, 2.2))
    for column, (title, data) in enumerate(volumes.items()):
        volume = Volume(torch.from_numpy(data).float(), box_grid(2.0))
        for row, plane in enumerate(("sagittal", "coronal", "axial")):
            ax = axes[row, column]
            draw_plane(ax, volume, plane, np.array(POINT_MM), WINDOW)
            if column:
                ax.set_ylabel("")
        axes[0, column].set_title(title)
    return figure


def control_figure(rows: pd.DataFrame, attribute: str = "ventricles"):
    """Requested against measured values; the ruler first, then both ways to ask.

    The dashed line is perfect agreement, the solid one the fit.
    """
    pairs = control_pairs(rows)
    pairs = pairs[pairs["what"] == attribute]
    ruler = pairs[(pairs["arm"] == parts.RULER) & (pairs["how"] != parts.REAL)]
    groups = [("the ruler,\nheld-out heads", ruler)]
    for arm, name in ((ANATOMY, "anatomy first"), (IMAGE, "image only")):
        own = pairs[pairs["arm"] == arm]
        groups += [(f"{name},\n{how}", some) for how, some in own.groupby("how")]
    figure, axes = panels(1, len(groups), panel_in=(2.7, 2.9))
    ends = [pairs[["asked", "measured"]].min().min(), pairs[["asked", "measured"]].max().max()]
    unit = ATTRIBUTES[attribute].unit
    for column, (title, own) in enumerate(groups):
        _scatter(axes[0, column], own, ends, COLOURS[2 if column == 0 else 0])
        known = "known" if column == 0 else "requested"
        axes[0, column].set(title=title, xlabel=f"{attribute}, {known} ({unit})")
    axes[0, 0].set_ylabel(f"{attribute}, measured ({unit})")
    return figure


def _scatter(ax, own: pd.DataFrame, ends: list[float], colour: str) -> None:
    asked, seen = own["asked"].to_numpy(), own["measured"].to_numpy()
    ax.plot(ends, ends, "--", color="#777777", lw=1)
    ax.plot(asked, seen, "o", color=colour, ms=4, alpha=0.7)
    if len(own) == 0:
        return
    found = agreement(asked, seen)
    line = np.array([asked.min(), asked.max()])
    ax.plot(line, seen.mean() + found["slope"] * (line - asked.mean()), color=colour)
    ax.text(
        0.04, 0.96, f"n = {len(own)}\nr² = {found['r2']:.2f}\nslope {found['slope']:.2f}",
        transform=ax.transAxes, va="top", fontsize=8,
    )  # fmt: skip
    ax.set_aspect("equal", adjustable="datalim")


def sharpness_figure(rows: pd.DataFrame):
    """MS-SSIM, and spread of shape, against power in the 4-8 mm band.

    The line joins one held-out set after known blurs; marks are sets of samples. A set on the
    line differs from held-out heads by sharpness alone.
    """
    table = wide(rows)
    figure, axes = panels(1, 2, panel_in=(4.0, 3.4))
    shown = (("ms_ssim", "MS-SSIM among heads"), ("shape_spread", "spread of shape (reference 1)"))
    names = [parts.blur_name(s) for s in parts.BLURS_MM]
    soft = table[(table["arm"] == parts.HELD_OUT) & table["condition"].isin(names)]
    soft = soft.set_index("condition").reindex([n for n in names if n in set(soft["condition"])])
    for ax, (metric, label) in zip(axes[0], shown, strict=True):
        if len(soft):
            ax.plot(soft["power_4_8_db"], soft[metric], "o-", color="#000000", ms=4,
                    label="held-out heads, blurred by 0 to 2 mm")  # fmt: skip
        for k, arm in enumerate(arm for arm in ARMS if arm not in ALIKE):
            own = table[(table["arm"] == arm) & (table["condition"] == parts.SAMPLED)]
            if len(own):
                ax.plot(own["power_4_8_db"], own[metric], "D", color=COLOURS[k], label=NAMES[arm])
        ax.set(xlabel="power at 4–8 mm over the reference's (dB)", ylabel=label)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


# Of a page's own samples


def loss_curve(share: np.ndarray, losses: Sequence[float]):
    """A training loss minus that of judging every number by itself, which needs no training.

    Dots are steps, the line the running mean over 1/12 of them; below zero the network knows how
    numbers hang together. `share` holds the [steps, batch] times 0 ... 1 of each step.
    """
    figure, axes = panels(1, 1, panel_in=(6.0, 3.2))
    ax, width = axes[0, 0], max(1, len(losses) // 12)
    gained = np.asarray(losses) - untrained(share).mean(1)
    mean = np.convolve(gained, np.ones(width) / width, "valid")
    ax.plot(gained, ".", color="0.75", ms=4, label="one step")
    ax.plot(np.arange(len(mean)) + width / 2, mean, color=COLOURS[0], lw=2, label="running mean")
    ax.axhline(0, color=COLOURS[2], ls=":", lw=2, label="every number by itself")
    ax.set(xlabel="step", ylabel="loss, minus that line's", xlim=(0, len(losses)))
    ax.legend(frameon=False, ncols=3, loc="upper right")
    return figure


# A viewer: one slider through several volumes


def slices_viewer(
    volumes: Mapping[str, Volume],
    window: tuple[float, float],
    plane: str = "coronal",
    frames: int = 25,
    alt: str = "",
) -> Any:
    """A slider through volumes on any grids, every panel cut at the same place in mm: HTML.

    It is a page's own: pictures inside the page, a range input and a line of script. The box of the
    first volume is shown, in cuts evenly between its middle eight tenths. `alt` is for readers who
    do not see them.
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


def blur_curves(curves: Mapping[str, pd.DataFrame]):
    """Two measures of variety against blur, each relative to its value without blur.

    `curves` maps a set to sigma_mm, ms_ssim and shape. Left: 1 - MS-SSIM; right: spread of shapes.
    """
    figure, axes = panels(1, 2, panel_in=(3.7, 3.0))
    for colour, (name, lines) in zip(COLOURS, curves.items(), strict=False):
        for ax, values in zip(axes[0], (1 - lines["ms_ssim"], lines["shape"]), strict=True):
            ax.plot(lines["sigma_mm"], values / values.iloc[0], "o-", color=colour, label=name)
    top = max(line.get_ydata().max() for ax in axes[0] for line in ax.lines)
    for ax, title in zip(axes[0], ("by MS-SSIM: 1 − MS-SSIM", "by shape: spread"), strict=True):
        ax.axhline(1, color="#777777", lw=1, ls=":")
        ax.set(xlabel="blur, σ (mm)", ylim=(0, 1.1 * max(1.0, top)), title=title)
    axes[0, 0].set_ylabel("variety (unblurred: 1)")
    axes[0, 0].legend(frameon=False, loc="lower left")
    return figure
