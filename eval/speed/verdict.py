"""What the page on speed says of recorded rows, or of their absence: Markdown."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from eval.speed.bars import newest, number
from eval.speed.findings import GROWTH, INTEGRATED, LITERAL
from eval.speed.report import binding, value, verdict
from eval.tables import markdown, provenance

NOTHING = "*Nothing is recorded yet. Record it with* `python -m eval.speed --profile quick`."
PROPORTIONAL = 0.5  # of the exponent of growth: more is called growth with the voxels


def origin(rows: pd.DataFrame | None) -> str:
    """When and on what the rows were recorded."""
    return NOTHING if rows is None else f"*{provenance(newest(rows))}*"


def shown(rows: pd.DataFrame | None, table: Callable[[pd.DataFrame], pd.DataFrame]) -> str:
    """A table of recorded rows, or the sentence that there is none."""
    made = pd.DataFrame() if rows is None else table(rows)
    return NOTHING if made.empty else markdown(made)


def verdict_list(rows: pd.DataFrame | None) -> str:
    """The verdict's lines as a list, without those on what binds."""
    if rows is None:
        return NOTHING
    lines = [line for line in verdict(rows).splitlines() if not line.startswith("What binds")]
    return "\n".join(f"- {line}" for line in lines)


def growth_words(rows: pd.DataFrame | None) -> str:
    """From the coarsest to the finest output: how many times the voxels, seconds and memory."""
    found = None if rows is None else newest(rows)
    own = None if found is None else found[found["kind"] == GROWTH]
    if own is None or own.empty:
        return NOTHING
    wide = own.pivot_table(index="sizes", columns="metric", values="value")
    wide = wide.sort_values("n_voxels")
    first, last = wide.iloc[0], wide.iloc[-1]
    times = last / first
    fate = "hardly grows" if times["peak_rss_mb"] < 1.3 else "grows"
    if times["peak_rss_mb"] > times["n_voxels"] ** PROPORTIONAL:
        fate = "grows with the output"
    return (
        f"From {wide.index[0]} to {wide.index[-1]} the output has {number(times['n_voxels'])} "
        f"times the voxels. The process takes {number(times['seconds'])} times as long "
        f"({number(first['seconds'])} s, then {number(last['seconds'])} s), and its peak memory "
        f"{fate}: {number(times['peak_rss_mb'])} times ({number(first['peak_rss_mb'])} MB, then "
        f"{number(last['peak_rss_mb'])} MB)."
    )


def binding_words(rows: pd.DataFrame | None) -> str:
    """What binds on each device, and how far the two forms of LTE are apart."""
    if rows is None:
        return NOTHING
    found = newest(rows)
    lines = [line for where in sorted(set(found["where"])) if (line := binding(found, where))]
    times = value(found, INTEGRATED, "integrated", "ratio_to_naive", "1 thread")
    best = _fastest_literal(found)
    if times is not None and best is not None:
        lines.append(
            f"A voxel of the cell-integrated layer takes {number(times)} times less than one of "
            f"the naive literal layer, in the same run, and {number(times / best)} times less "
            "than one of the fastest literal form measured."
        )
    return "\n\n".join(lines) or NOTHING


def _fastest_literal(found: pd.DataFrame) -> float | None:
    own = found[
        (found["kind"] == LITERAL)
        & (found["metric"] == "ratio_to_naive")
        & (found["where"] == "1 thread")
    ]
    return None if own.empty else float(own["value"].max())
