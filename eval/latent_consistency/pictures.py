"""Figures of the page on latent consistency: distances on one axis, curves of a wrong header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from torch import Tensor

from eval.latent_consistency.conditions import ANOTHER, SAME, SMOOTHER, WHOLE
from eval.latent_consistency.report import QUESTIONS
from medil.grid import Grid
from medil.plots import COLOURS, draw_plane, panels
from medil.volume import Volume

GROUPS = {  # colour and mark of each question
    QUESTIONS[SAME]: (COLOURS[2], "o"),
    QUESTIONS[SMOOTHER]: (COLOURS[5], "s"),
    QUESTIONS[WHOLE]: (COLOURS[1], "D"),
    "wrong header": (COLOURS[3], "^"),
}
SMALLEST = 1e-3  # drawn, so that a logarithm exists
KINDS = {  # of headers: colour, mark and words
    "header off": (COLOURS[3], "^-", "header off, voxels in place"),
    "head moved": (COLOURS[4], "v:", "head moved, header unchanged"),
    "truly scanned there": (COLOURS[2], "o-", "header and voxels moved together"),
}


def on_one_axis(lines: pd.DataFrame):
    """Distances of every question on one logarithmic axis, a heading a question; another head: 1.

    `lines`: Group (a key of `GROUPS`), Scanned, Distance, Low and High (NaN for one head).
    """
    shown = [group for group in GROUPS if (lines["Group"] == group).any()]
    figure, axes = panels(1, 1, panel_in=(7.2, 0.9 + 0.23 * (len(lines) + len(shown))))
    ax, places = axes[0, 0], []
    names: list[str] = []
    ax.axvline(1, color="#777777", lw=1.2)
    for group in shown:
        ax.text(-0.01, len(names), group, transform=ax.get_yaxis_transform(), ha="right",
                va="center", weight="bold")  # fmt: skip
        names.append("")
        for line in lines[lines["Group"] == group].itertuples(index=False):
            _line(ax, line, len(names))
            places.append(len(names))
            names.append(line.Scanned.replace(" x ", " × "))
    ax.set_xscale("log")
    ax.set_xlim(SMALLEST * 0.9, 2)
    ax.set_yticks(places, [names[place] for place in places])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("distance between latents (fraction of that between heads)")
    ax.text(1, -0.75, "another head", ha="center", va="bottom", fontsize=8)
    return figure


def latents(shown: Mapping[str, Tensor], cells: Grid):
    """One coronal plane of latents [C, d, h, w] on the same cells, and the first two's difference.

    Above the first channel, the mean of each cell; below the detail channel that varies most.
    """
    first, second = list(shown.values())[:2]
    columns = dict(list(shown.items())[:2]) | {"difference": second - first}
    columns |= dict(list(shown.items())[2:])
    detail = 1 + int(first[1:].flatten(1).std(1).argmax())
    rows = {0: "mean of each cell", detail: f"detail, channel {detail}"}
    figure, axes = panels(2, len(columns), panel_in=(2.5, 2.6))
    for line, (channel, told) in zip(axes, rows.items(), strict=True):
        middle = 0.0 if channel else float(first[channel].mean())
        reach = float((first[channel] - middle).abs().quantile(0.995))
        for ax, (title, z) in zip(line, columns.items(), strict=True):
            signed = bool(channel) or title == "difference"
            window = (-reach, reach) if signed else (middle - reach, middle + reach)
            draw_plane(ax, Volume(z[channel].cpu(), cells), "coronal", cells.centre_mm, window,
                       "PuOr_r" if signed else "gray")  # fmt: skip
            ax.set_title("" if channel else title)
            ax.label_outer()
        line[0].set_ylabel(f"{told}\n{line[0].get_ylabel()}")
    return figure


def _line(ax, line, place: int) -> None:
    colour, mark = GROUPS[line.Group]
    ax.plot(max(line.Distance, SMALLEST), place, mark, color=colour, ms=5)
    if line.Low == line.Low:  # not NaN
        ends = [max(line.Low, SMALLEST), max(line.High, SMALLEST)]
        ax.plot(ends, [place, place], color=colour, lw=2)


def lines_on_one_axis(table: pd.DataFrame, header: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The lines of `on_one_axis` from the two tables of `report`: one arm, all channels."""
    chosen = table[
        (table["Arm"] == arm) & (table["Channels"] == "all") & (table["Scanned"] != ANOTHER)
    ]
    wrong = header[
        (header["Arm"] == arm) & header["Kind"].isin(["header off", "header turned"])
        & (header["By"] > 0)
    ]  # fmt: skip
    amounts = zip(wrong["Kind"], wrong["By"], wrong["Unit"], strict=True)
    labels = [f"{kind} by {by:g} {unit}" for kind, by, unit in amounts]
    both = [
        chosen.assign(Group=chosen["Question"]),
        wrong.assign(Group="wrong header", Scanned=labels),
    ]
    columns = ["Group", "Scanned", "Distance", "Low", "High"]
    return pd.concat([part[columns] for part in both], ignore_index=True)


def header_curves(
    header: pd.DataFrame | None, arm: str, live: Mapping[str, Sequence] | None = None
):
    """Distance and dB lost against the header's offset, with head moves as the control.

    Bands are intervals. `live` holds ``off_mm``, ``distance`` and ``lost_db`` of one head.
    """
    figure, axes = panels(1, 2, panel_in=(3.9, 3.2))
    columns = (("Distance", "Low", "High"), ("Lost (dB)", "Low (dB)", "High (dB)"))
    for kind, (colour, mark, label) in KINDS.items():
        if header is None:
            break
        lines = header[(header["Kind"] == kind) & (header["Arm"] == arm)]
        for ax, (middle, low, high) in zip(axes[0], columns, strict=True):
            found = lines[lines[middle].notna()]
            if len(found):
                ax.fill_between(found["By"], found[low], found[high], color=colour, alpha=0.25)
                ax.plot(found["By"], found[middle], mark, color=colour, ms=5, label=label)
    for ax, key in zip(axes[0], ("distance", "lost_db"), strict=True):
        if live:
            ax.plot(live["off_mm"], live[key], "x", color="black", ms=7, label="live, one head")
    axes[0, 0].axhline(1, color="#777777", lw=1)
    axes[0, 0].text(0, 1.02, "another head", fontsize=8, va="bottom")
    axes[0, 0].set(title="the latent", ylabel="distance (another head: 1)")
    axes[0, 1].set(title="the rendering", ylabel="PSNR lost (dB)")
    for ax in axes[0]:
        ax.set_xlabel("offset (mm)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure
