"""Pictures of this experiment: error split by arm, shell correlation, white matter's surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from eval.extrapolation.blocks import CONDITIONS, Block
from eval.extrapolation.report import arms_of, name_of, scores_of
from eval.extrapolation.score import BANDS
from eval.metrics.spectra import fsc
from eval.metrics.tissue import thresholds
from eval.metrics.topology import topology, white_surface
from eval.pairs import Scores
from medil.grid import Grid
from medil.plots import COLOURS, draw_plane, panels
from medil.volume import Volume

WAVES = {"fine": "waves of 2 to 4 mm", "beyond": "waves below 2 mm"}  # keys of `BANDS`
FALSE, LOST = COLOURS[1], COLOURS[5]  # vermilion, sky blue
SHOWN = ("integrated", "trilinear", "medil", "dct_ball")  # arms of `split_bars`
SPLIT = {"kept": COLOURS[2], "smoothed": COLOURS[0], "invented": COLOURS[1]}


def split_bars(
    heads: pd.DataFrame,
    conditions: Sequence[str],
    bands: Sequence[str],
    shown: Sequence[str] = SHOWN,
):
    """What became of the truth's detail: a row a band, a column a condition, three bars an arm.

    Whiskers are 95 % intervals over synthetic heads; a line at 1 is the truth's amplitude.
    """
    scores = scores_of(heads)
    arms = [a for a in arms_of(heads) if a in shown]
    figure, axes = panels(len(bands), len(conditions), panel_in=(3.7, 0.8 + 0.46 * len(arms)))
    for row, band in zip(axes, bands, strict=True):
        for ax, condition in zip(row, conditions, strict=True):
            _bars(ax, scores, arms, condition, band)
            ax.set_title(f"{condition.replace('->', '→')} mm, {WAVES[band]}")
            ax.set_yticks(range(len(arms)), [name_of(arm) for arm in arms])
            ax.set(ylim=(len(arms) - 0.4, -0.6), xlim=(0, 1.15))
        for ax in row[1:]:
            ax.set_yticklabels([])
    for ax in axes[-1]:
        ax.set_xlabel("amplitude over the truth's")
    _legend(figure, SPLIT)
    return figure


def _legend(figure, colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _bars(ax, scores: Scores, arms: Sequence[str], condition: str, band: str) -> None:
    shown = False
    for place, arm in enumerate(arms):
        for offset, (part, colour) in zip((-0.26, 0, 0.26), SPLIT.items(), strict=True):
            level = scores.level(arm, condition, f"detail_{part}_{band}")
            if level:
                shown = True
                ax.barh(place + offset, level.mean, 0.24, color=colour)
                ax.plot([level.low, level.high], [place + offset] * 2, color="black", lw=1)
    ax.axvline(1, color="#777777", lw=1, ls=":")
    if not shown:
        ax.text(0.5, 0.5, "no such voxels", transform=ax.transAxes, ha="center")


def fsc_curves(block: Block, rendered: Mapping[str, Mapping[str, np.ndarray]]):
    """Shell correlation with the truth: a panel a condition, a curve a coder.

    Lines are at 0.5, and at the limit of 1 mm voxels. `rendered` holds condition ->
    title -> [D, H, W] on the rendered voxels.
    """
    figure, axes = panels(1, len(rendered), panel_in=(3.6, 2.9))
    titles = list(dict.fromkeys(title for data in rendered.values() for title in data))
    for ax, (condition, by_title) in zip(axes[0], rendered.items(), strict=True):
        rendered_on = CONDITIONS[condition][1]
        truth, mask = block.truth(rendered_on), block.mask(rendered_on)
        spacing_mm = block.volumes[rendered_on].grid.spacing_mm
        for title, data in by_title.items():
            i = titles.index(title)
            shells = fsc(truth, data, mask, spacing_mm)
            style = "-" if i % 2 == 0 else "--"
            ax.plot(
                shells.frequency_per_mm, shells.correlation, style, color=COLOURS[i], label=title
            )
        ax.axhline(0.5, color="#777777", lw=0.8, ls=":")
        ax.axvline(BANDS["beyond"][0], color="#777777", lw=0.8)
        ax.text(BANDS["beyond"][0], 1.02, " limit of 1 mm voxels", fontsize=7, ha="center")
        ax.set(xlabel="cycles per mm", ylim=(-0.05, 1.12), xlim=(0, 0.5 / max(spacing_mm)))
        ax.set_title(f"{condition.replace('->', '→')} mm", loc="left")
    axes[0, 0].set_ylabel("shell correlation with the truth")
    handles, titles = axes[0, -1].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def white_matter(block: Block, voxels: str, rendered: Mapping[str, np.ndarray]):
    """One axial plane: the truth, then each rendering with its false and its lost white matter.

    The plane is the one where the first rendering has most false white matter; titles count
    pieces and handles of the whole block. `rendered` holds title -> [D, H, W] on `voxels`.
    """
    truth, mask, grid = block.truth(voxels), block.mask(voxels), block.volumes[voxels].grid
    shown = {"truth": truth, **rendered}
    border = thresholds(truth, mask)[1]
    white = {
        title: white_surface(data, mask, grid.spacing_mm, border) for title, data in shown.items()
    }
    first = white[next(iter(rendered))] & ~white["truth"]
    plane_vox = int(np.argmax(first.sum(axis=(0, 1))))
    middle_mm = grid.centre_mm
    middle_mm[2] = grid.index_to_ras(np.full(3, plane_vox))[2]
    figure, axes = panels(-(-len(shown) // 2), 2, panel_in=(3.9, 3.9))
    for ax in axes.ravel()[len(shown) :]:
        ax.set_axis_off()
    for ax, (title, data) in zip(axes.ravel(), shown.items(), strict=False):
        _surface_panel(ax, grid, data, white[title], white["truth"], middle_mm, plane_vox)
        count = topology(white[title])
        ax.set_title(f"{title}\n{count.components} pieces, {count.handles} handles")
        ax.label_outer()
    _legend(figure, {"false white matter": FALSE, "lost white matter": LOST})
    return figure


def _surface_panel(
    ax, grid: Grid, data: np.ndarray, white: np.ndarray, true_white: np.ndarray,
    point_mm: np.ndarray, plane_vox: int,
) -> None:  # fmt: skip
    import torch
    from matplotlib.colors import to_rgba

    draw_plane(ax, Volume(torch.from_numpy(data), grid), "axial", point_mm, (0.0, 1.1))
    here, true_here = white[:, :, plane_vox], true_white[:, :, plane_vox]
    for wrong, colour in ((here & ~true_here, FALSE), (~here & true_here, LOST)):
        overlay = np.zeros((*wrong.shape, 4))
        overlay[wrong] = to_rgba(colour, 0.85)
        ax.imshow(
            overlay.transpose(1, 0, 2), extent=grid.bounds_mm.T[:2].ravel(),
            origin="lower", interpolation="nearest",
        )  # fmt: skip
    first_mm = grid.index_to_ras(np.zeros(3))
    places_mm = [first_mm[axis] + grid.axis_offsets_mm(axis, grid) for axis in (0, 1)]
    ax.contour(*places_mm, true_here.T, [0.5], colors="#E69F00", linewidths=0.8)
