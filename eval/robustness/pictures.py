"""The figures on robustness: one from rows alone, one of damaged blocks and their renderings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eval.robustness import damage as damages
from eval.robustness.damage import BLOCK_MM, DAMAGES, Damage, do
from eval.robustness.heads import block_of, cut_box
from eval.robustness.measure import RENDERED
from eval.robustness.report import ARMS, metrics_table
from eval.subjects import Subject
from medil.plots import COLOURS, draw_plane, panels
from medil.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eval.coders.base import Coder

MARKS = ("o", "s", "^", "D")
SMALLEST_PERCENT = 1e-3  # of the logarithmic axis


def figure(frame: pd.DataFrame) -> Figure:
    """What every code passes on of each damage, and how far the others reach.

    Args:
        frame: Recorded rows.

    Returns:
        Left, the share passed on with its 95 % interval, 1 marked; right, the rendering's
        change in percent of the peak where the input within the mask did not change.
    """
    table = metrics_table(frame)
    table = table[table["Compared"] == RENDERED]
    passed = table[table["Metric"] == "passed_on"]
    reached = table[
        (table["Metric"] == "change")
        & table["Damage"].isin([damages.SCALE, damages.OUTLIER, damages.CROP])
    ]
    height_in = 1.4 + 0.34 * max(map(_n_places, (passed, reached)))
    drawn, axes = panels(1, 2, panel_in=(5.6, height_in))
    left, right = axes[0]
    _dots(left, passed)
    left.axvline(1, color="0.4", lw=1)
    left.set(xlabel="share of the damage passed on (1 = all)", xlim=(0, None))
    _dots(right, reached, floor=SMALLEST_PERCENT)
    right.set(xlabel="change of the rendering (% of the peak)", xscale="log")
    handles, names = left.get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    return drawn


def _n_places(table: pd.DataFrame) -> int:
    return len(table.drop_duplicates(["Damage", "Strength", "Where"]))


def _dots(axes: Any, table: pd.DataFrame, floor: float = 0.0) -> None:
    """One line a damage, strength and place; one mark a code, with its interval."""
    places = list(table[["Damage", "Strength", "Where"]].drop_duplicates().itertuples(index=False))
    arms = [a for a in ARMS if a in set(table["Arm"])]
    for number, arm in enumerate(arms):
        own = table[table["Arm"] == arm].set_index(["Damage", "Strength", "Where"])
        here = [k for k, place in enumerate(places) if tuple(place) in own.index]
        lines = own.loc[[tuple(places[k]) for k in here]]
        y = np.array(here) + 0.16 * (number - (len(arms) - 1) / 2)
        low, mean, high = (np.maximum(lines[c], floor) for c in ("Low", "Mean", "High"))
        axes.hlines(y, low, high, color=COLOURS[number], lw=1.5)
        axes.plot(mean, y, MARKS[number], ms=5, color=COLOURS[number], label=ARMS[arm])
    names = [
        f"{p.Damage}, {p.Strength}" + ("" if p.Where == damages.BRAIN else f", {p.Where}")
        for p in places
    ]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="0.9", lw=0.8)
    axes.set_axisbelow(True)


def damage_figure(
    subject: Subject, coder: Coder, which: tuple[Damage, ...] = (), plane: str = "sagittal"
) -> Figure:
    """Damaged blocks above, what a code renders of each below, in one window.

    Args:
        subject: From `eval.robustness.heads`.
        coder: From `eval.coders.base`.
        which: Damages; the clean block and the strongest of four kinds when empty.
        plane: sagittal, coronal or axial, through the middle of the block.

    Returns:
        The figure.
    """
    scan = subject.load()
    clean = cut_box(scan, block_of(scan, BLOCK_MM))
    brightest = float(np.percentile(clean.volume.data.numpy()[clean.mask], 99.8))
    window = (0.0, 1.25 * brightest)  # damage may be brighter than tissue
    point_mm = clean.volume.grid.index_to_ras((np.array(clean.mask.shape) - 1) // 2)
    chosen = which or strongest()
    drawn, axes = panels(2, len(chosen), panel_in=(2.3, 2.5))
    for column, damage in enumerate(chosen):
        damaged = do(damage, scan, subject.data_sha256)
        grid = damaged.volume.grid
        given = damaged.undone(damaged.volume.data.double().numpy())
        rendered = damaged.undone(coder.decode(coder.encode(damaged.volume), grid))
        for row, data in enumerate((given, rendered)):
            volume = Volume(_tensor(data), grid)
            draw_plane(axes[row, column], volume, plane, point_mm, window)
            axes[row, column].label_outer()
        axes[0, column].set_title(f"{damage.kind}\n{damage.level}")
    axes[0, 0].set_ylabel(f"given\n{axes[0, 0].get_ylabel()}")
    axes[1, 0].set_ylabel(f"{coder.title}\n{axes[1, 0].get_ylabel()}")
    return drawn


def strongest() -> tuple[Damage, ...]:
    """No damage, then the strongest noise, shading, ghosts and motion."""
    kinds = (damages.NONE, damages.NOISE, damages.BIAS, damages.GHOSTS, damages.MOTION)
    return tuple([d for d in DAMAGES if d.kind == kind][-1] for kind in kinds)


def _tensor(data: np.ndarray):
    import torch

    return torch.from_numpy(np.ascontiguousarray(data))
