"""The figures on patches: one from rows alone, one of the seams in a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eval.metrics import peak_intensity
from eval.patch_vs_whole import patches
from eval.patch_vs_whole.measure import BLOCK_MM, scaled
from eval.patch_vs_whole.report import ARMS, ROUNDING_PERCENT, means
from eval.robustness.heads import block_of, cut_box
from eval.subjects import Subject
from medil.plots import COLOURS, draw_plane, panels
from medil.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medil.model.base import LatentAutoencoder

REACH_NAMES = {"largest_black": "rest black", "largest_cut": "rest cut off"}


def figure(frame: pd.DataFrame) -> Figure:
    """Difference, seams and reach against the halo, from recorded rows.

    Args:
        frame: Recorded rows.

    Returns:
        Three panels: the difference of patches from the whole, the steps across their
        faces (1 = no seam), and the largest change behind one face; means over heads.
    """
    table = means(frame)
    drawn, axes = panels(1, 3, panel_in=(3.7, 3.6))
    blocks = table[(table["side_mm"] > 0) & ~table["own_scale"]]
    for ax, metric in zip(axes[0], ("difference", "seam"), strict=False):
        own = blocks[blocks["metric"] == metric]
        for colour, arm in zip(COLOURS, ARMS, strict=False):
            for style, side in zip(("-", "--"), sorted(set(own["side_mm"]), reverse=True)):
                lines = own[(own["arm"] == arm) & (own["side_mm"] == side)]
                name = f"{ARMS[arm]}, {side} mm patches"
                _line(ax, lines, name, color=colour, ls=style)
        ax.set_xlabel("halo (mm)")
    axes[0, 0].set(ylabel="difference from the whole, RMS (% of the peak)", yscale="log")
    axes[0, 1].set(ylabel="steps across faces, patches / whole")
    axes[0, 1].axhline(1, color="0.4", lw=1)
    for colour, arm in zip(COLOURS, ARMS, strict=False):
        for style, metric in zip((":", "-."), REACH_NAMES, strict=True):
            lines = table[(table["metric"] == metric) & (table["arm"] == arm)]
            # All of the bar differs by exactly nothing, which a logarithm cannot show.
            _line(axes[0, 2], lines[lines["mean"] > 0], f"{ARMS[arm]}, {REACH_NAMES[metric]}",
                  color=colour, ls=style)  # fmt: skip
    axes[0, 2].axhline(ROUNDING_PERCENT, color="0.4", lw=1)
    axes[0, 2].set(
        xlabel="seen beyond the face (mm)", ylabel="largest difference (% of the peak)",
        yscale="log",
    )  # fmt: skip
    for ax in (axes[0, 0], axes[0, 2]):
        ax.legend(frameon=False, fontsize=7)
    return drawn


def _line(axes: Any, lines: pd.DataFrame, name: str, **style: Any) -> None:
    if lines.empty:
        return
    lines = lines.sort_values("halo_mm")
    axes.plot(lines["halo_mm"], lines["mean"], marker="o", ms=4, label=name, **style)
    axes.fill_between(
        lines["halo_mm"], lines["low"], lines["high"], color=style["color"], alpha=0.15, lw=0
    )


def seam_figure(
    model: LatentAutoencoder,
    subject: Subject,
    side_mm: float = 48.0,
    halos_mm: tuple[float, ...] = (0.0, 8.0),
    plane: str = "coronal",
) -> Figure:
    """The block at once, and where patches with each halo differ from it.

    Args:
        model: Any arm.
        subject: From `eval.robustness.heads`.
        side_mm: Of the patches.
        halos_mm: One panel each.
        plane: sagittal, coronal or axial, through the middle of the block, where faces meet.

    Returns:
        The figure; differences in percent of the peak, in one symmetric window.
    """
    scan = subject.load()
    block = cut_box(scan, block_of(scan, (BLOCK_MM,) * 3))
    x, grid = scaled(block), block.volume.grid
    peak = peak_intensity(x.double().numpy(), block.mask)
    whole = patches.rebuilt_whole(model, x, grid)
    apart = [patches.rebuilt_by_patches(model, x, grid, side_mm, h) for h in halos_mm]
    errors = [100 * (a - whole).double() / peak for a in apart]
    limit = float(np.percentile(np.abs(errors[0].numpy()[block.mask]), 99)) or 1.0
    # A third into the first patch, where faces of the other two axes are seen edge-on.
    point_mm = grid.index_to_ras(np.array(grid.shape) // 3)
    drawn, axes = panels(1, 1 + len(errors), panel_in=(3.0, 3.1))
    draw_plane(axes[0, 0], Volume(whole, grid), plane, point_mm, (0.0, float(peak)))
    axes[0, 0].set_title("rendered at once")
    for ax, error, halo in zip(axes[0, 1:], errors, halos_mm, strict=True):
        image = draw_plane(ax, Volume(error, grid), plane, point_mm, (-limit, limit), "PuOr_r")
        ax.set_title(f"patches − whole, halo {halo:g} mm")
    for ax in axes.flat:
        ax.label_outer()
    drawn.colorbar(image, ax=axes[0, -1], extend="both", label="% of the peak")
    return drawn
