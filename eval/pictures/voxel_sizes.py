"""The curve of `eval.reconstruction.curve`: gain over voxel size, numbers kept on a second axis."""

from __future__ import annotations

import pandas as pd

from eval.coders.base import title_of
from eval.reconstruction.curve import UNCOMPRESSED
from eval.reconstruction.sizes import ALONG, CUBES
from medil.plots import COLOURS, panels

MARKS = {CUBES: "o-", ALONG[2]: "o-", ALONG[0]: "v", ALONG[1]: "^"}
PANELS = {"cubes": (CUBES,), "slices": tuple(reversed(ALONG))}  # title -> lines
SIDES = {"cubes": "side (mm)", "slices": "thickness (mm)"}


def gains(points: pd.DataFrame):
    """Gain over the best linear code by voxel size, with 95 % intervals over brains.

    `points`: of `eval.reconstruction.curve.points`. Grey: the latent holds a number for every
    voxel, so that a linear code of its size keeps a copy.
    """
    figure, axes = panels(1, 2, panel_in=(4.0, 3.4))
    arms = list(dict.fromkeys(points["arm"]))
    for ax, (title, kinds) in zip(axes[0], PANELS.items(), strict=True):
        found = points[points["kind"].isin(kinds)]
        for number, arm in enumerate(arms):
            for kind in kinds:
                _line(ax, found[(found["arm"] == arm) & (found["kind"] == kind)], number)
        ax.axhline(0, color="0.4", lw=1, ls="--")
        ax.set(xlabel=SIDES[title], ylabel="MedIL − best linear code (dB)")
        _numbers_above(ax, found[found["arm"] == arms[0]].drop_duplicates("size_mm"))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _line(ax, points: pd.DataFrame, number: int) -> None:
    points = points[points["said"] != UNCOMPRESSED].sort_values("size_mm")
    if points.empty:
        return
    means = [gain.mean for gain in points["gain"]]
    ends = [
        [gain.mean - gain.low for gain in points["gain"]],
        [gain.high - gain.mean for gain in points["gain"]],
    ]
    kind, colour = points["kind"].iloc[0], COLOURS[number % len(COLOURS)]
    label = f"{title_of(points['arm'].iloc[0])}, {kind}"
    ax.errorbar(
        points["size_mm"], means, ends, fmt=MARKS[kind], color=colour, ms=5, capsize=2, label=label
    )


def _numbers_above(ax, points: pd.DataFrame) -> None:
    """The numbers kept a voxel, above each size, and grey where nothing is compressed."""
    points = points.sort_values("size_mm")
    above = ax.secondary_xaxis("top")
    above.set_xticks(list(points["size_mm"]), [f"{n:.2g}" for n in points["per_voxel"]])
    above.set_xlabel("numbers kept per voxel")
    above.tick_params(labelsize=7)
    copied = points[points["said"] == UNCOMPRESSED]
    if len(copied):
        low, high = copied["size_mm"].min(), copied["size_mm"].max()
        ax.axvspan(low, high, color="0.9", lw=0)
        said = "a linear code\nkeeps a copy"
        ax.text((low + high) / 2, 0.9, said, ha="center", va="top", fontsize=7,
                transform=ax.get_xaxis_transform())  # fmt: skip
