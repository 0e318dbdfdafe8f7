"""The sentences on speed, built from prepared rows."""

from __future__ import annotations

import math

import pandas as pd

from eval.cited import cited
from eval.speed.bars import ratios_table
from eval.speed.report import value, wide
from eval.speed.timing import BUSY, CEILING, GROWTH, INTEGRATED, LITERAL
from eval.tables import aligned, three_digits

FLAT = 1.3  # times the memory: less is called hardly growing
PROPORTIONAL = 0.5  # of the exponent of growth: more is called growth with the voxels


def verdict(rows: pd.DataFrame) -> str:
    """Growth with the output, the limit on each device, and the lead over literal LTE."""
    devices = sorted(set(rows["where"]))
    lines = [growth(rows), *(binding(rows, where) for where in devices)]
    lines += [against_literal(rows), beside_another(rows)]
    return "\n".join(line for line in lines if line)


def answer(rows: pd.DataFrame) -> list[str]:
    """Growth with the output, the lead over literal LTE, and the limit on one thread."""
    return [growth(rows), against_literal(rows), binding(rows, "1 thread")]


def summary(rows: pd.DataFrame) -> str:
    """What the command prints: measured ratios, then the verdict."""
    return f"{aligned(ratios_table(rows))}\n\n{verdict(rows)}"


def growth(rows: pd.DataFrame) -> str:
    """Ratio of voxels, seconds and memory between the coarsest and the finest output."""
    own = wide(rows, GROWTH).sort_values("n_voxels")
    if own.empty:
        return ""
    sizes = own["sizes"].to_list()
    first, last = (own[["n_voxels", "seconds", "peak_rss_mb"]].iloc[k] for k in (0, -1))
    times = last / first
    trend = "hardly grows" if times["peak_rss_mb"] < FLAT else "grows"
    if times["peak_rss_mb"] > times["n_voxels"] ** PROPORTIONAL:
        trend = "grows with the output"
    longer, more = (three_digits(times[name]) for name in ("seconds", "peak_rss_mb"))
    return (
        f"From {sizes[0]} to {sizes[-1]} the output has "
        f"{three_digits(times['n_voxels'])} times the voxels. The process takes "
        f"{cited(longer, kind=GROWTH, metric='seconds')} times as long "
        f"({three_digits(first['seconds'])} s, then {three_digits(last['seconds'])} s), and its "
        f"peak memory {trend}: {cited(more, kind=GROWTH, metric='peak_rss_mb')} times "
        f"({three_digits(first['peak_rss_mb'])} MB, then {three_digits(last['peak_rss_mb'])} MB)."
        f"{_of_the_layer(rows, first, last)}"
    )


def _of_the_layer(rows: pd.DataFrame, first: pd.Series, last: pd.Series) -> str:
    """How many of these seconds the resampling layer takes; empty if unmeasured."""
    ns = value(rows, INTEGRATED, "integrated", "ns_per_voxel", "1 thread")
    if math.isnan(ns):
        return ""
    seconds = (three_digits(1e-9 * ns * line["n_voxels"]) for line in (first, last))
    return (
        f" At {three_digits(ns)} ns per voxel the layer itself takes {' and '.join(seconds)} s of "
        "these; the rest is the start of the program, the networks and the file."
    )


def binding(rows: pd.DataFrame, where: str) -> str:
    """The ceiling that limits the cell-integrated renderer on `where`; empty if unmeasured."""
    copy, arithmetic, ns = (
        value(rows, INTEGRATED, "integrated", metric, where)
        for metric in ("copy_share", "arithmetic_share", "ns_per_voxel")
    )
    if math.isnan(copy + arithmetic + ns):
        return ""
    of = {"kind": INTEGRATED, "arm": "integrated", "where": where}
    share = cited(f"{max(copy, arithmetic):.0f} %", metric=["copy_share", "arithmetic_share"], **of)
    each = cited(three_digits(ns), metric="ns_per_voxel", **of)
    limit, other = "copying", "arithmetic"
    if arithmetic > copy:
        limit, other = other, limit
    copied = value(rows, CEILING, "copy", "gb_per_s", where)
    multiplied = value(rows, CEILING, "multiply", "gflop_per_s", where)
    measured = f"({three_digits(copied)} GB/s, {three_digits(multiplied)} GFLOP/s) "
    if math.isnan(copied + multiplied):
        measured = ""
    return (
        f"On {where}, {limit} limits the cell-integrated renderer: at the machine's full speed "
        f"{measured}it would take {share} of the measured {each} ns per voxel, and {other} "
        f"{min(copy, arithmetic):.0f} %."
    )


def against_literal(rows: pd.DataFrame) -> str:
    """How much faster the cell-integrated layer is than the literal one, per voxel."""
    times, low, high = (
        value(rows, INTEGRATED, "integrated", f"ratio_to_naive{end}", "1 thread")
        for end in ("", "_low", "_high")
    )
    forms = wide(rows[rows["where"] == "1 thread"], LITERAL)["ratio_to_naive"].max()
    if math.isnan(times + forms):
        return ""
    lead = cited(three_digits(times), kind=INTEGRATED, arm="integrated", metric="ratio_to_naive")
    return (
        f"Per voxel, the cell-integrated layer is {lead} times faster than the "
        f"naive literal layer in the same run (median over rounds; {three_digits(low)} to "
        f"{three_digits(high)}), and {three_digits(times / forms)} times faster than the fastest "
        "literal form measured."
    )


def beside_another(rows: pd.DataFrame) -> str:
    """What sleeping threads gain beside another busy process; empty if unmeasured."""
    own = wide(rows, BUSY).dropna(subset="ratio_to_spinning")
    if own.empty:
        return ""
    last = own.iloc[-1]
    return (
        f"Beside another busy process, encoding and decoding a brain on {last['where']} takes "
        f"{three_digits(last['seconds'])} s, {three_digits(last['ratio_to_spinning'])} times less "
        "than with threads that spin while they wait."
    )
