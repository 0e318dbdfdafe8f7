"""The figures on speed, from rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eval.speed.report import TITLES, value
from eval.speed.timing import CEILING, GROWTH, INTEGRATED, LITERAL, WHOLE
from medil.plots import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def renderers_figure(rows: pd.DataFrame | None, where: str = "1 thread") -> Figure:
    """Nanoseconds per voxel of every renderer, and how close each is to the machine's ceiling.

    Left, a dot per renderer with its lowest and highest round; right, operations per second
    against operations per byte, with the measured ceilings. Both logarithmic.
    """
    if rows is None:
        return _nothing()
    rows = rows[rows["where"] == where]
    drawn, axes = panels(1, 2, panel_in=(5.2, 4.0))
    _dots(axes[0, 0], rows[rows["kind"].isin([LITERAL, INTEGRATED])])
    _roof(axes[0, 1], rows, where)
    return drawn


def _nothing() -> Figure:
    drawn, axes = panels(1, 1, panel_in=(6.0, 1.2))
    axes[0, 0].set_axis_off()
    axes[0, 0].text(0.5, 0.5, "nothing is recorded yet", ha="center", va="center")
    return drawn


def _dots(axes: Any, rows: pd.DataFrame) -> None:
    wide = rows.pivot_table(index="arm", columns="metric", values="value")
    wide = wide.dropna(subset="ns_per_voxel").sort_values("ns_per_voxel", ascending=False)
    y = np.arange(len(wide))
    axes.hlines(y, wide["ns_per_voxel_low"], wide["ns_per_voxel_high"], color=COLOURS[0], lw=2)
    axes.plot(wide["ns_per_voxel"], y, "o", ms=5, color=COLOURS[0])
    axes.set_yticks(y, [TITLES.get(arm, arm) for arm in wide.index])
    axes.set_ylim(len(wide) - 0.5, -0.5)
    axes.set(xscale="log", xlabel="ns a voxel (logarithmic)")
    axes.margins(x=0.1)
    axes.grid(axis="x", color="0.9", lw=0.8)
    axes.set_axisbelow(True)


def _roof(axes: Any, rows: pd.DataFrame, where: str) -> None:
    """GFLOP/s against FLOP/byte: the two ceilings, and each renderer whose work was counted."""
    copy = value(rows, CEILING, "copy", "gb_per_s", where)
    peak = value(rows, CEILING, "multiply", "gflop_per_s", where)
    counted = rows[rows["metric"] == "flop_per_voxel"]
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="GFLOP/s")
    if copy is None or peak is None or counted.empty:
        axes.text(0.5, 0.5, "no ceilings are recorded here", ha="center", transform=axes.transAxes)
        return
    intensity = []
    for number, row in enumerate(counted.itertuples(index=False)):
        moved = value(rows, row.kind, row.arm, "bytes_per_voxel", where)
        ns = value(rows, row.kind, row.arm, "ns_per_voxel", where)
        intensity.append(row.value / moved)
        axes.plot(
            intensity[-1], row.value / ns, "osD^v<>"[number % 7], ms=6,
            color=COLOURS[number % len(COLOURS)], label=TITLES.get(row.arm, row.arm),
        )  # fmt: skip
    ends = np.geomspace(min(*intensity, 1.0) / 2, max(*intensity, peak / copy) * 2, 200)
    axes.plot(ends, np.minimum(ends * copy, peak), color="0.3", lw=1.2)
    axes.text(0.98, 0.97, f"roof: copying {copy:.3g} GB/s, arithmetic {peak:.3g} GFLOP/s",
              ha="right", va="top", fontsize=8, transform=axes.transAxes)  # fmt: skip
    heights = [line.get_ydata()[0] for line in axes.lines[:-1]]
    axes.set_ylim(min(heights) / 30, 3 * max(*heights, peak))  # room for words
    axes.legend(frameon=False, fontsize=7.5, loc="lower left")
    axes.grid(color="0.92", lw=0.8)
    axes.set_axisbelow(True)


def growth_figure(rows: pd.DataFrame | None) -> Figure:
    """Seconds and peak memory of `medil decode` against output voxels, both logarithmic.

    A line shows proportional growth, a mark MONAI at its only size.
    """
    if rows is None:
        return _nothing()
    own = rows[rows["kind"] == GROWTH].pivot_table(index="sizes", columns="metric", values="value")
    peers = rows[(rows["kind"] == WHOLE) & (rows["arm"] == "monai")]
    peers = peers.sort_values("threads").groupby("metric").last()
    drawn, axes = panels(1, 2, panel_in=(4.4, 3.2))
    for ax, metric, label in zip(
        axes[0], ("seconds", "peak_rss_mb"), ("seconds", "peak memory (MB)"), strict=True
    ):
        ax.set(xscale="log", yscale="log", xlabel="voxels of the output", ylabel=label)
        if own.empty:
            ax.text(0.5, 0.5, "no growth is recorded", ha="center", transform=ax.transAxes)
            continue
        line = own.sort_values("n_voxels")
        ax.plot(line["n_voxels"], line[metric], "o-", color=COLOURS[0], label="medil decode")
        for size, point in line.iterrows():
            ax.annotate(size, (point["n_voxels"], point[metric]), xytext=(0, 6),
                        textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
        ends = line["n_voxels"].iloc[[0, -1]]
        in_step = line[metric].iloc[0] * ends / ends.iloc[0]
        ax.plot(ends, in_step, ":", color="0.4", label="in step with the voxels")
        _peer(ax, peers, metric)
        ax.margins(x=0.12, y=0.2)
        ax.grid(color="0.92", lw=0.8)
        ax.set_axisbelow(True)
    handles, names = axes[0, 1].get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return drawn


def _peer(ax: Any, peers: pd.DataFrame, metric: str) -> None:
    """MONAI at the only size that it decodes."""
    name = "decode_s" if metric == "seconds" else metric
    if name in peers.index:
        point = peers.loc[name]
        ax.plot(point["n_voxels"], point["value"], "s", color=COLOURS[1],
                label="MONAI AutoencoderKL, its one size")  # fmt: skip
