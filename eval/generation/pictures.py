"""Pictures of sampled heads: beside real ones, control, diversity and sharpness."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from eval.generation import parts
from eval.generation.autoencoders import RELEASE, TITLES
from eval.generation.report import NAMES, agreement, control_pairs, wide
from medil.diffusion.latents import box_grid
from medil.plots import COLOURS, draw_plane, panels
from medil.synth.attributes import ATTRIBUTES
from medil.volume import Volume

POINT_MM = (4.0, 0.0, 4.0)  # beside the midplane, through the lateral ventricles
WINDOW = (0.0, 1.0)


def montage(volumes: Mapping[str, np.ndarray], spacing_mm: float = 2.0):
    """Heads (title to [D, H, W], 0 ... 1) side by side in three planes through one point."""
    figure, axes = panels(3, len(volumes), panel_in=(2.1, 2.2))
    for column, (title, data) in enumerate(volumes.items()):
        volume = Volume(torch.from_numpy(np.asarray(data, dtype=np.float32)), box_grid(spacing_mm))
        for row, plane in enumerate(("sagittal", "coronal", "axial")):
            ax = axes[row, column]
            draw_plane(ax, volume, plane, np.array(POINT_MM), WINDOW)
            if column:
                ax.set_ylabel("")
        axes[0, column].set_title(title)
    return figure


def control_figure(rows: pd.DataFrame, attribute: str = "ventricles"):
    """Requested against measured values; the ruler first, then each guidance weight.

    The dashed line is perfect agreement, the solid one the fit.
    """
    pairs = control_pairs(rows)
    pairs = pairs[pairs["what"] == attribute]
    groups = [("the ruler, held-out heads", pairs[pairs["arm"] == parts.RULER])]
    samples = pairs[pairs["arm"] == RELEASE]
    groups += [(f"samples, {how}", own) for how, own in samples.groupby("how")]
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
        0.04, 0.96, f"n = {len(own)}\nr2 = {found['r2']:.2f}\nslope {found['slope']:.2f}",
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
        for k, arm in enumerate(TITLES):
            own = table[(table["arm"] == arm) & (table["condition"] == parts.SAMPLED)]
            if len(own):
                ax.plot(own["power_4_8_db"], own[metric], "D", color=COLOURS[k], label=NAMES[arm])
        ax.set(xlabel="power at 4-8 mm over the reference's (dB)", ylabel=label)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure
