"""What page 08 draws: each metric against each fault, the matrix of harm, a closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from eval.faults.distortions import FAULTS, Block, Scores, harm
from eval.metrics import METRICS, Shells
from medil.plots import COLOURS, panels
from medil.volume import Volume

MARKERS = "osD^vP"
HARM_COLOURS = "PuOr_r"  # purple: better than a copy; orange: worse


def as_volume(block: Block, data: np.ndarray) -> Volume:
    """A spoiled block as a volume on the block's grid."""
    return Volume(torch.from_numpy(np.ascontiguousarray(data)).float(), block.grid)


def curves(
    levels_db: Sequence[float],
    scores: Sequence[Scores],
    copy: Mapping[str, float],
    names: Sequence[str],
    columns: int = 3,
):
    """One panel per metric: its value against PSNR, one line per fault, an exact copy dashed.

    Where lines lie on one another, the metric adds nothing to PSNR.
    """
    rows = math.ceil(len(names) / columns)
    figure, axes = panels(rows, columns, panel_in=(2.9, 2.2))
    for ax, name in zip(axes.flat, names, strict=False):
        for colour, marker, fault in zip(COLOURS, MARKERS, scores[0], strict=False):
            values = [level[fault][name] for level in scores]
            ax.plot(levels_db, values, color=colour, marker=marker, ms=4, lw=1.4,
                    label=FAULTS[fault].title)  # fmt: skip
        ax.axhline(copy[name], color="0.45", ls="--", lw=0.9)
        metric = METRICS[name]
        unit = f" ({metric.unit})" if metric.unit in ("mm", "dB") else ""
        ax.set_title(f"{metric.title}{unit} {metric.direction}")
        ax.set(xticks=list(levels_db), xlim=(max(levels_db) + 1, min(levels_db) - 1))
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    for ax in axes[-1]:
        ax.set_xlabel("PSNR (dB)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    return figure


def matrix(scores: Scores, copy: Mapping[str, float]):
    """Harm of each fault by each metric at equal PSNR, with the values written in.

    Orange is worse than a copy, purple "better"; each row is scaled by its own largest value.
    """
    harms = harm(scores, copy)
    names, faults = list(harms), list(scores)
    values = np.array([[harms[n][f] for f in faults] for n in names])
    figure, axes = panels(1, 1, panel_in=(8.2, 0.32 * len(names) + 1))
    ax = axes[0, 0]
    image = ax.imshow(values, cmap=HARM_COLOURS, vmin=-1, vmax=1, aspect="auto", origin="upper")
    for row, name in enumerate(names):
        for column, fault in enumerate(["copy", *faults]):
            value = copy[name] if fault == "copy" else scores[fault][name]
            dark = column > 0 and abs(values[row, column - 1]) > 0.7
            ax.text(column - 1, row, f"{value:.3g}", ha="center", va="center", fontsize=8,
                    color="white" if dark else "black")  # fmt: skip
    titles = [f"{METRICS[n].title} {METRICS[n].direction}" for n in names]
    ax.set_yticks(range(len(names)), titles)
    ax.set_xticks(range(-1, len(faults)), ["a copy", *(FAULTS[f].title for f in faults)])
    ax.set_xlim(-1.5, len(faults) - 0.5)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    figure.colorbar(image, ax=ax, shrink=0.6, label="harm, of the row's largest")
    return figure


def shells_beside(measured: Mapping[str, Shells], formula: Mapping[str, np.ndarray]):
    """Fourier shell correlations as dots, the expected correlation as lines, by title."""
    figure, axes = panels(1, 1, panel_in=(5.6, 3.1))
    ax = axes[0, 0]
    for colour, (title, shells) in zip(COLOURS, measured.items(), strict=False):
        ax.plot(shells.frequency_per_mm, shells.correlation, "o", ms=3.5, color=colour, label=title)
        ax.plot(shells.frequency_per_mm, formula[title], color=colour, lw=1.2)
    ax.axhline(0.5, color="0.45", ls=":", lw=1)
    ax.annotate("0.5", (0.004, 0.515), color="0.35", fontsize=8)
    ax.set(xlabel="spatial frequency (cycles/mm)", ylabel="shell correlation", ylim=(-0.08, 1.04))
    ax.set_xlim(0, None)
    ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 0.24))
    return figure
