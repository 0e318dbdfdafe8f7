"""Tables and a figure of the page on data, from the manifests alone: no file is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medil.data.manifest import dataset, datasets
from medil.data.schema import DataSet, Entry
from medil.plots import COLOURS, panels


def every() -> list[DataSet]:
    """All data sets that have a manifest: those with files first."""
    return sorted(map(dataset, datasets()), key=lambda one: not one.files)


def overview(sets: Iterable[DataSet]) -> pd.DataFrame:
    """One line a data set with files: what it holds, how much, whose, and its licence."""
    return pd.DataFrame(
        {
            "Data set": f"[{one.name}]({one.page})", "What": one.title,
            "Files": len(one.files), "People": len({entry.subject for entry in one.files}),
            "Train / test": _splits(one.files), "Licence": one.licence,
        }
        for one in sets
        if one.files
    )  # fmt: skip


def citations(sets: Iterable[DataSet]) -> str:
    """What to cite when using a data set: a Markdown list."""
    return "\n".join(f"- **{one.name}**: {one.citation}" for one in sets if one.files)


def elsewhere(sets: Iterable[DataSet]) -> pd.DataFrame:
    """One line a data set that is not fetched from here: access, licence and terms."""
    return pd.DataFrame(
        {
            "Data set": f"[{one.name}]({one.page})", "What": one.title, "Access": one.access,
            "Licence": one.licence, "Terms": one.terms,
        }
        for one in sets
        if not one.files
    )  # fmt: skip


def scans(sets: Iterable[DataSet]) -> pd.DataFrame:
    """One line a data set and split: people, ages, sexes, and the range of voxel sizes (mm)."""
    lines = []
    for one in sets:
        for split in ("train", "test"):
            own = [entry for entry in one.files if entry.split == split]
            if own:
                lines.append({
                    "Data set": one.name, "Split": split, "Files": len(own),
                    "People": len({entry.subject for entry in own}),
                    "Age (years)": _ages(own), "Women / men": _sexes(own),
                    "Voxels (mm)": _voxels(own),
                })  # fmt: skip
    return pd.DataFrame(lines)


def _splits(files: Sequence[Entry]) -> str:
    counts = [sum(entry.split == split for entry in files) for split in ("train", "test")]
    return " / ".join(map(str, counts))


def _ages(files: Sequence[Entry]) -> str:
    ages = [entry.age for entry in files if entry.age is not None]
    return (
        f"{min(ages):g} to {max(ages):g}, median {np.median(ages):g}" if ages else "not published"
    )


def _sexes(files: Sequence[Entry]) -> str:
    sexes = [entry.sex for entry in files]
    return f"{sexes.count('f')} / {sexes.count('m')}" if any(sexes) else "not published"


def _voxels(files: Sequence[Entry]) -> str:
    """The smallest and largest voxel size along each axis."""
    sizes = np.array([entry.spacing_mm for entry in files if entry.spacing_mm])
    if not len(sizes):
        return "see the files"
    ends = zip(sizes.min(0), sizes.max(0), strict=True)
    texts = (f"{a:.2f}" if b - a < 0.005 else f"{a:.2f}–{b:.2f}" for a, b in ends)
    return " × ".join(texts)


def voxel_figure(sets: Iterable[DataSet]) -> Any:
    """Every file's largest voxel side against its smallest, a colour a data set."""
    figure, axes = panels(1, 1, panel_in=(5.4, 3.6))
    ax, ends = axes[0, 0], [np.inf, 0.0]
    known = ((one.name, [e.spacing_mm for e in one.files if e.spacing_mm]) for one in sets)
    for colour, (name, sizes) in zip(COLOURS, ((n, s) for n, s in known if s), strict=False):
        low, high = np.min(sizes, axis=1), np.max(sizes, axis=1)
        ends = [min(ends[0], low.min()), max(ends[1], high.max())]
        ax.plot(low, high, "o", color=colour, ms=5, alpha=0.7, label=f"{name} (n = {len(sizes)})")
    ax.plot(ends, ends, "--", color="0.5", lw=1, label="cubes")
    ax.set(xscale="log", yscale="log", xlabel="smallest side of a voxel (mm)",
           ylabel="largest side of a voxel (mm)")  # fmt: skip
    ticks = [t for t in (0.25, 0.5, 1, 2, 4, 8) if ends[0] * 0.8 <= t <= ends[1] * 1.25]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(ticks, [f"{t:g}" for t in ticks], minor=False)
        axis.set_ticks([], minor=True)
    ax.legend(frameon=False)
    return figure
