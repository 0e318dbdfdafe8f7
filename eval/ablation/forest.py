"""The forest plot of the ablation: differences and their intervals, one line a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from eval.ablation.pairs import name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK, LIGHT, GREY = "#0072B2", "#D55E00", "#777777"  # Okabe and Ito 2008


def forest_figure(pairs: pd.DataFrame, title: str = "") -> Figure:
    """Differences with their 95 % intervals, one line a pair, 0 marked.

    Args:
        pairs: Lines of `pairs_table`; a dozen can be read.
        title: Above the plot.

    Returns:
        A figure; intervals that leave out 0 are filled, the others hollow.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 1.2 + 0.32 * max(1, len(pairs))), layout="constrained")
    axes: Any = figure.subplots()
    labels = []
    for place, (_, p) in enumerate(pairs.iterrows()):
        colour = DARK if p["shortcut"].startswith("with ") else LIGHT
        settled = p["low"] > 0 or p["high"] < 0
        axes.plot([p["low"], p["high"]], [place, place], color=colour, linewidth=2)
        axes.plot(p["mean"], place, "o", color=colour, markerfacecolor=colour if settled else "w")
        labels.append(
            f"{name_of(p['first'])} − {name_of(p['second'])}, {p['spacing']}, {p['budget']} "
            f"(n = {p['n_subjects']} × {p['n_seeds']})"
        )
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("difference in PSNR inside the brain (dB), 95 % interval")
    handles = [axes.plot([], [], color=c, linewidth=2)[0] for c in (DARK, LIGHT)]
    names = ["with the shortcut", "without the shortcut"]
    figure.legend(handles, names, loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    axes.set_title(title, loc="left", fontsize=10)
    return figure
