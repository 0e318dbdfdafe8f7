"""The figures on speed, from rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eval.speed.report import TITLES, value, wide
from eval.speed.timing import CEILING, GROWTH, INTEGRATED, LITERAL, WHOLE
from medil.plots import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BFLOAT16 = ("separable, bf16",)  # the roof is that of float32


def renderers_figure(rows: pd.DataFrame | None) -> Figure:
    """Nanoseconds per voxel of every renderer, and how close each is to the machine's ceiling.

    Left, a dot per renderer with its lowest and highest round; right, operations per second
    against operations per byte, with the measured ceilings. Both logarithmic.
    """
    if rows is None:
        return _nothing()
    drawn, axes = panels(1, 2, panel_in=(5.2, 4.0))
    table = wide(rows[rows["where"] == "1 thread"], LITERAL, INTEGRATED)
    table = table.assign(title=table["arm"].replace(TITLES)).dropna(subset="ns_per_voxel")
    _dots(axes[0, 0], table.sort_values("ns_per_voxel", ascending=False))
    copy, peak = (
        value(rows, CEILING, arm, metric, "1 thread")
        for arm, metric in (("copy", "gb_per_s"), ("multiply", "gflop_per_s"))
    )
    counted = table[~table["arm"].isin(BFLOAT16)].dropna(subset="flop_per_voxel")
    _roof(axes[0, 1], counted, copy, peak)
    return drawn


def _nothing() -> Figure:
    drawn, axes = panels(1, 1, panel_in=(6.0, 1.2))
    axes[0, 0].set_axis_off()
    axes[0, 0].text(0.5, 0.5, "nothing is recorded yet", ha="center", va="center")
    return drawn


def _dots(axes: Any, table: pd.DataFrame) -> None:
    y = np.arange(len(table))
    axes.hlines(y, table["ns_per_voxel_low"], table["ns_per_voxel_high"], color=COLOURS[0], lw=2)
    axes.plot(table["ns_per_voxel"], y, "o", ms=5, color=COLOURS[0])
    axes.set_yticks(y, table["title"])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set(xscale="log", xlabel="ns a voxel (logarithmic)")
    axes.margins(x=0.1)
    axes.grid(axis="x", color="0.9", lw=0.8)
    axes.set_axisbelow(True)


def _roof(axes: Any, table: pd.DataFrame, copy: float, peak: float) -> None:
    """GFLOP/s against FLOP/byte: the two ceilings, and each renderer whose work was counted."""
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="GFLOP/s")
    if np.isnan(copy + peak) or table.empty:
        axes.text(0.5, 0.5, "no ceilings are recorded here", ha="center", transform=axes.transAxes)
        return
    intensity = table["flop_per_voxel"] / table["bytes_per_voxel"]
    speed = table["flop_per_voxel"] / table["ns_per_voxel"]
    axes.plot(intensity, speed, "o", ms=6, color=COLOURS[0])
    for x, y, title in zip(intensity, speed, table["title"], strict=True):
        place = {"xytext": (-7, 0), "ha": "right", "va": "center"}
        if x < peak / copy:  # under the slope: its name stands below
            place = {"xytext": (3, -13), "ha": "left"}
        axes.annotate(title, (x, y), textcoords="offset points", fontsize=8, **place)
    ends = np.geomspace(min(*intensity, 1.0) / 2, max(*intensity, peak / copy) * 2, 200)
    axes.plot(ends, np.minimum(ends * copy, peak), color="0.3", lw=1.2)
    words = f"roof in float32: copying {copy:.3g} GB/s,\narithmetic {peak:.3g} GFLOP/s"
    axes.text(0.98, 0.98, words, ha="right", va="top", fontsize=8, transform=axes.transAxes)
    axes.set_ylim(speed.min() / 3, 4 * max(*speed, peak))  # room for words
    axes.grid(color="0.92", lw=0.8)
    axes.set_axisbelow(True)


def growth_figure(rows: pd.DataFrame | None) -> Figure:
    """Seconds and peak memory of `medil decode` against output voxels, both logarithmic.

    A line shows proportional growth, a mark MONAI at its only size.
    """
    if rows is None:
        return _nothing()
    line = wide(rows, GROWTH).sort_values("n_voxels")
    peers = rows[(rows["kind"] == WHOLE) & (rows["arm"] == "monai")]
    peers = peers.sort_values("threads").groupby("metric").last()
    drawn, axes = panels(1, 2, panel_in=(4.4, 3.2))
    for ax, metric, label in zip(
        axes[0], ("seconds", "peak_rss_mb"), ("seconds", "peak memory (MB)"), strict=True
    ):
        ax.set(xscale="log", yscale="log", xlabel="voxels of the output", ylabel=label)
        if line.empty:
            ax.text(0.5, 0.5, "no growth is recorded", ha="center", transform=ax.transAxes)
            continue
        ax.plot(line["n_voxels"], line[metric], "o-", color=COLOURS[0], label="medil decode")
        for size, *point in zip(line["sizes"], line["n_voxels"], line[metric], strict=True):
            ax.annotate(size, point, xytext=(0, 6),
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
