"""What the pages of a report show of one scan: planes, errors, and which detail came through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from eval.coders.base import LINEAR, Coder, coders_from, linear_coders, release_coders, title_of
from eval.evaluate import EXPERIMENT
from eval.evaluate.inputs import PLAN, RULES, Checked, Plan, read, read_plan
from eval.evaluate.report import NATIVE, scores
from eval.metrics.spectra import detail_split, fsc
from eval.pictures.hero import along_axes_mm, mask_ends, point_of_interest
from eval.subjects import Scan
from medil.errors import InputError
from medil.plots import COLOURS, PLANES, draw_plane, panels
from medil.volume import Volume

MARGIN_MM = 5.0  # shown around the mask
BANDS = 3  # of equal width, up to what the finest axis samples
A_COPY_DB = 100.0  # PSNR above which what is left is rounding
THRESHOLD = 0.5


@dataclass(frozen=True)
class Page:
    """One scan, its recorded rows, and its renderings by several codes on its own grid."""

    about: Checked
    scan: Scan
    rows: pd.DataFrame
    rebuilt: dict[str, Volume]  # title -> volume; the first is the one shown in planes
    titles: dict[str, str]  # title -> arm in the rows


def open_page(folder: Path, name: str) -> Page:
    """Read a scan again and render it: the release, the best linear code, the user's models.

    `folder` holds the rows and the plan.

    Raises:
        InputError: The plan does not name it, or nothing is recorded.
    """
    plan = read_plan(Path(folder) / PLAN)
    about = next((v for v in plan.volumes if v.name == name), None) if plan else None
    if plan is None or about is None:
        raise InputError(f"this report has no volume called {name!r}.")
    rows = EXPERIMENT.recorded(folder)
    if rows is None:
        raise InputError("this report has no rows yet; run medil evaluate again.")
    rows = rows[rows["subject"] == name]
    scan = read(about)
    rebuilt, titles = {}, {}
    for coder in shown_coders(plan, rows):
        title = title_of(coder.name)
        data = coder.decode(coder.encode(scan.volume), scan.volume.grid)
        rebuilt[title] = Volume(torch.from_numpy(data), scan.volume.grid)
        titles[title] = coder.name
    return Page(about, scan, rows, rebuilt, titles)


def shown_coders(plan: Plan, rows: pd.DataFrame) -> list[Coder]:
    """The release, the linear code that did best on this scan, and the user's own."""
    table = scores(rows[rows["condition"] == NATIVE]).set_index("arm")["psnr"]
    linear = table[table.index.isin(LINEAR)]
    best = [c for c in linear_coders(plan.release) if len(linear) and c.name == linear.idxmax()]
    own = [coder for text in plan.coders for coder in coders_from(text)]
    return [release_coders(plan.release)[0], *best, *own]


def facts(page: Page) -> pd.DataFrame:
    """What the scan is and how it was scored: two columns."""
    about = page.about
    values = page.scan.volume.data.double().numpy()[page.scan.mask]
    low, middle, high = np.percentile(values, (1, 50, 99))
    lines = [
        ("File", Path(about.path).name),
        ("Voxels", " × ".join(map(str, about.shape))),
        ("Voxel size", f"{' × '.join(f'{s:.3g}' for s in about.spacing_mm)} mm"),
        ("Orientation of the file", about.orientation),
        ("Scored inside", RULES[about.rule]),
        ("Mask", f"{about.mask_cm3:,.0f} cm³, {100 * about.mask_share:.0f} % of the volume"),
        ("Intensity in it", f"{low:.4g}, {middle:.4g}, {high:.4g} (1st, 50th, 99th percentile)"),
    ]
    return pd.DataFrame(lines, columns=["What", "Value"])


def planes_and_errors(page: Page):
    """Planes through one point across; the scan, its rendering and the signed error down."""
    truth, (title, rebuilt) = page.scan.volume, next(iter(page.rebuilt.items()))
    error = Volume(rebuilt.data.double() - truth.data.double(), truth.grid)
    limit = float(np.percentile(error.data.abs().numpy()[page.scan.mask], 99)) or 1.0
    point_mm = point_of_interest(truth, page.scan.mask)
    window = tuple(np.percentile(truth.data.numpy()[page.scan.mask], (1, 98)))  # fat is bright
    rows = {
        "scan": (truth, window, "gray"),
        title: (rebuilt, window, "gray"),
        "error": (error, (-limit, limit), "PuOr_r"),
    }
    figure, axes = panels(len(rows), len(PLANES), panel_in=(2.9, 2.7))
    ends_mm = [truth.grid.index_to_ras(end) for end in mask_ends(page.scan.mask)]
    low, high = np.sort([along_axes_mm(truth.grid, end) for end in ends_mm], axis=0)
    for row, (label, (volume, limits, colours)) in zip(axes, rows.items(), strict=True):
        for ax, plane in zip(row, PLANES, strict=True):
            image = draw_plane(ax, volume, plane, point_mm, limits, colours)
            _, across, up = PLANES[plane]
            ax.set_xlim(low[across] - MARGIN_MM, high[across] + MARGIN_MM)
            ax.set_ylim(low[up] - MARGIN_MM, high[up] + MARGIN_MM)
            ax.set_title(f"{label}, {plane}")
    bar = figure.colorbar(image, ax=axes[-1], shrink=0.8, extend="both")
    bar.set_label("rebuilt − scan\n(intensity)")
    return figure


def detail_curves(page: Page):
    """Which detail came through, by its size.

    Left: Fourier shell correlation against frequency, with the threshold, and where the longest
    voxels stop sampling; beyond it other directions are left. Right: in bands of frequency, the
    share of the truth's power that was smoothed away (below) and that was invented (above,
    hatched); together they are the error.
    """
    figure, (axes,) = panels(1, 2, panel_in=(4.4, 3.4))
    curve, bars = axes
    truth, mask, spacing_mm = _numbers(page)
    finest, lowest = 0.5 / min(spacing_mm), 0.0
    for colour, (title, volume) in zip(COLOURS, page.rebuilt.items(), strict=False):
        shells = fsc(truth, volume.data.numpy(), mask, spacing_mm, beyond_coarsest=True)
        seen = shells.frequency_per_mm <= finest
        frequency, correlation = shells.frequency_per_mm[seen], shells.correlation[seen]
        curve.plot(frequency, correlation, color=colour, lw=1.8, label=title)
        lowest = min(lowest, correlation.min())
    curve.axhline(THRESHOLD, color="0.4", lw=0.9, ls=":")
    curve.set(xlabel="spatial frequency (cycles/mm)", ylabel="correlation with the scan")
    if max(spacing_mm) > 1.01 * min(spacing_mm):
        curve.axvline(shells.limit_per_mm, color="0.4", lw=0.9, ls="-.")
    curve.set(xlim=(0, finest), ylim=(lowest, 1.03))
    curve.legend(frameon=False, fontsize=8, loc="lower left")
    table = detail_table(page)
    width = 0.8 / len(page.rebuilt)
    bands = list(dict.fromkeys(table["Band (mm)"]))
    for number, (title, colour) in enumerate(zip(page.rebuilt, COLOURS, strict=False)):
        part = table[table["Code"] == title]
        place = np.arange(len(part)) + (number - (len(page.rebuilt) - 1) / 2) * width
        smoothed, invented = (part[name] ** 2 for name in ("Smoothed", "Invented"))
        bars.bar(place, smoothed, width * 0.9, color=colour, label=title)
        bars.bar(
            place, invented, width * 0.9, bottom=smoothed, color="w", edgecolor=colour, hatch="///"
        )
    bars.axhline(1, color="0.4", lw=0.9, ls=":")
    bars.set_xticks(range(len(bands)), bands)
    bars.set(xlabel="size of the detail (mm)", ylabel="error, share of the scan's power")
    handles = [bars.bar(0, 0, color="0.5"), bars.bar(0, 0, color="w", edgecolor="0.5", hatch="///")]
    bars.legend(handles, ["smoothed away", "invented"], frameon=False, fontsize=8)
    return figure


def detail_table(page: Page) -> pd.DataFrame:
    """Kept, smoothed, invented and error of each code in bands of detail; amplitudes, no unit."""
    truth, mask, spacing_mm = _numbers(page)
    edges = np.linspace(0, 0.5 / min(spacing_mm), BANDS + 1)
    lines = []
    for title, volume in page.rebuilt.items():
        for low, high in pairwise(edges):
            split = detail_split(truth, volume.data.numpy(), mask, spacing_mm, (low, high))
            size = f"{1 / high:.1f} to {1 / low:.1f}" if low else f"above {1 / high:.1f}"
            lines.append((size, title, split.kept, split.smoothed, split.invented, split.error, 1))
    columns = ["Band (mm)", "Code", "Kept", "Smoothed", "Invented", "Error", "n"]
    return pd.DataFrame(lines, columns=columns)


def warnings_text(about: Checked) -> str:
    """The warnings as a Markdown list; empty where there are none."""
    return "\n".join(f"- {text}" for text in about.warnings)


def summary_sentence(page: Page) -> str:
    """PSNR of the codes shown on the scan's own grid, as recorded."""
    native = page.rows[(page.rows["condition"] == NATIVE) & (page.rows["metric"] == "psnr")]
    db: Mapping[str, float] = native.set_index("arm")["value"].to_dict()
    texts = [f"{title} {_db(db[arm])}" for title, arm in page.titles.items() if arm in db]
    return f"On its own grid, inside the mask (PSNR, n = 1 scan): {', '.join(texts)}."


def _db(value: float) -> str:
    return f"{value:.2f} dB" if value < A_COPY_DB else "a copy"  # NaN: no bound, a copy too


def _numbers(page: Page) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    volume = page.scan.volume
    return volume.data.double().numpy(), page.scan.mask, volume.grid.spacing_mm
