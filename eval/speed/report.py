"""From recorded rows to the tables and the sentences on speed; measures nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from eval import tables as shared
from eval.rows import recorded as rows_of
from eval.speed.bars import MET, NOT_MET, UNKNOWN, bars_table, newest, number
from eval.speed.findings import (
    CEILING,
    EXPERIMENT,
    GPU_BRAIN,
    GROWTH,
    INTEGRATED,
    LITERAL,
    TRAINING,
    WHOLE,
)

TITLES = {
    "naive": "literal LTE, naive",
    "neighbours": "literal LTE, neighbour by neighbour",
    "separable, eager": "literal LTE, separable, eager",
    "separable, compiled": "literal LTE, separable, compiled",
    "separable, bf16": "literal LTE, separable, compiled, bf16",
    "integrated": "cell-integrated LTE",
    "closed form": "the closed form's splines",
    "subpixel": "sub-pixel convolution, then cubic",
    "trilinear": "trilinear features, then MLP",
    "fixed-mlp": "fixed waves, then MLP",
    "liif": "LIIF",
}


def value(rows: pd.DataFrame, kind: str, arm: str, metric: str, where: str = "") -> float | None:
    """The newest value of one arm and metric, or None."""
    found = rows[(rows["kind"] == kind) & (rows["arm"] == arm) & (rows["metric"] == metric)]
    found = found[found["where"].str.startswith(where)].dropna(subset="value")
    return None if found.empty else float(found.sort_values("recorded_at")["value"].iloc[-1])


def renderers_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Nanoseconds a voxel of every renderer, the slowest first.

    Returns:
        Renderer, sizes, where, ns a voxel with its lowest and highest round, rounds.

    Raises:
        InputError: No speed is recorded.
    """
    rows = newest(frame)
    rows = rows[rows["kind"].isin([LITERAL, INTEGRATED])]
    wide = rows.pivot_table(
        index=["arm", "sizes", "where"], columns="metric", values="value", sort=False
    ).reset_index()
    if "ns_per_voxel" not in wide:
        return pd.DataFrame()
    wide = wide.dropna(subset="ns_per_voxel").sort_values("ns_per_voxel", ascending=False)
    return pd.DataFrame(
        {
            "Renderer": [TITLES.get(arm, arm) for arm in wide["arm"]],
            "Voxels and features": wide["sizes"].to_list(),
            "On": wide["where"].to_list(),
            "ns a voxel": wide["ns_per_voxel"].map(number).to_list(),
            "Lowest to highest": [
                f"{number(low)} to {number(high)}"
                for low, high in zip(
                    wide["ns_per_voxel_low"], wide["ns_per_voxel_high"], strict=True
                )
            ],
            "Rounds": wide["ns_per_voxel_rounds"].map("{:.0f}".format).to_list(),
        }
    )


def whole_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Whole brains: seconds to encode, decode and decode finer, and peak memory.

    Raises:
        InputError: No speed is recorded.
    """
    rows = newest(frame)
    rows = rows[rows["kind"] == WHOLE]
    names = {
        "encode_s": "Encode (s)",
        "decode_s": "Decode (s)",
        "resized_s": "Decode to 0.5 mm (s)",
        "peak_rss_mb": "Peak memory (MB)",
    }
    rows = rows[rows["metric"].isin(names)]
    if rows.empty:
        return pd.DataFrame()
    wide = rows.pivot_table(
        index=["where", "arm", "sizes"], columns="metric", values="value", sort=False
    ).reset_index()
    arms = {"tiny": "MedIL tiny", "monai": "MONAI AutoencoderKL (32, 64, 64)"}
    told = {
        "On": wide["where"],
        "Process": [arms.get(arm, arm) for arm in wide["arm"]],
        "Voxels": wide["sizes"],
    }
    told |= {
        title: wide[name].map(lambda v: "" if pd.isna(v) else number(v))
        for name, title in names.items()
        if name in wide
    }
    return pd.DataFrame(told)


def growth_table(frame: pd.DataFrame) -> pd.DataFrame:
    """`medil decode` at several voxel sizes: voxels, seconds, peak memory and its growth.

    Raises:
        InputError: No speed is recorded.
    """
    rows = newest(frame)
    rows = rows[rows["kind"] == GROWTH]
    if rows.empty:
        return pd.DataFrame()
    wide = rows.pivot_table(index=["sizes", "where"], columns="metric", values="value")
    wide = wide.reset_index().sort_values("n_voxels", ignore_index=True)
    return pd.DataFrame(
        {
            "Voxel": wide["sizes"],
            "Voxels (million)": (wide["n_voxels"] / 1e6).map(number),
            "Seconds": wide["seconds"].map(number),
            "Peak memory (MB)": wide["peak_rss_mb"].map(number),
            "Peak over that at 1 mm": wide["peak_ratio_to_1_mm"].map("{:.2f}".format),
            "On": wide["where"],
        }
    )


def card_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What a GPU was timed at beside renderers: a whole brain, a step of training.

    Returns:
        Job, device, milliseconds on the device (where events timed it), in all, peak memory.

    Raises:
        InputError: No speed is recorded.
    """
    rows = newest(frame)
    rows = rows[rows["kind"].isin([GPU_BRAIN, TRAINING]) & (rows["device"] != "cpu")]
    if rows.empty:
        return pd.DataFrame()
    wide = rows.pivot_table(index=["kind", "arm", "sizes", "where"], columns="metric",
                            values="value", sort=False).reset_index()  # fmt: skip
    on_device = wide["device_ms"] if "device_ms" in wide else pd.Series(float("nan"), wide.index)
    return pd.DataFrame(
        {
            "Job": wide["kind"] + ", " + wide["arm"] + ", " + wide["sizes"],
            "On": wide["where"],
            "On the device (ms)": on_device.map(lambda v: "" if pd.isna(v) else number(v)),
            "In all (ms)": (1e3 * wide["seconds"]).map(number),
            "Peak memory there (MB)": wide["peak_cuda_mb"].map(number),
        }
    )


# In words


def verdict(frame: pd.DataFrame) -> str:
    """How many bars are met, each that is not, and what binds.

    Args:
        frame: Recorded rows.

    Returns:
        Lines of text.

    Raises:
        InputError: No speed is recorded.
    """
    table, rows = bars_table(frame), newest(frame)
    counts = table["Verdict"].value_counts()
    measured = int(len(table) - counts.get(UNKNOWN, 0))
    lines = [f"{counts.get(MET, 0)} of {measured} bars that were measured are met."]
    for bar in table[table["Verdict"] == NOT_MET].itertuples(index=False):
        lines.append(f"Not met: {bar.Bar}: {bar.Measured}, asked for {bar.Asked}.")
    missing = table[table["Verdict"] == UNKNOWN]["Bar"]
    if len(missing):
        lines.append(f"Not measured: {'; '.join(missing)}.")
    lines += [line for where in rows["where"].unique() if (line := binding(rows, where))]
    return "\n".join(lines)


def binding(rows: pd.DataFrame, where: str) -> str:
    """Which of the machine's ceilings binds the cell-integrated renderer; empty if unmeasured.

    Args:
        rows: From `newest`.
        where: On what, such as ``1 thread``.
    """

    def of(metric: str) -> float | None:
        return value(rows, INTEGRATED, "integrated", metric, where)

    copy, arithmetic, ns = of("copy_share"), of("arithmetic_share"), of("ns_per_voxel")
    if copy is None or arithmetic is None or ns is None:
        return ""
    name = "copying" if copy >= arithmetic else "arithmetic"
    speeds = (
        value(rows, CEILING, "copy", "gb_per_s", where),
        value(rows, CEILING, "multiply", "gflop_per_s", where),
    )
    measured = ""
    if None not in speeds:
        measured = f" (here {number(speeds[0])} GB/s and {number(speeds[1])} GFLOP/s)"
    return (
        f"What binds the cell-integrated renderer on {where}: {name}. Its passes could not take "
        f"less than {max(copy, arithmetic):.0f} % of the {number(ns)} ns a voxel that they took"
        f"{measured}; the other ceiling alone would ask for {min(copy, arithmetic):.0f} %."
    )


def printed(frame: pd.DataFrame) -> str:
    """What the command prints: bars beside measured values, then the verdict."""
    table = bars_table(frame).drop(columns="Measured on")
    widths = [max(map(len, [name, *table[name]])) for name in table]

    def line(cells) -> str:
        return "  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip()

    rows = [line(table.columns), line("-" * w for w in widths)]
    rows += [line(cells) for cells in table.itertuples(index=False)]
    return "\n".join([*rows, "", verdict(frame)])


def recorded(folder: Path) -> pd.DataFrame | None:
    """The experiment's rows, or None where nothing is recorded yet."""
    frame = rows_of(folder, EXPERIMENT)
    return None if frame is None or not (frame["experiment"] == EXPERIMENT).any() else frame


def tables(folder: Path, out: Path) -> list[Path]:
    """Write ``speed_bars.csv``, ``speed.csv``, ``speed_whole.csv``, ``speed_growth.csv`` and text.

    Args:
        folder: Holds ``speed.jsonl``.
        out: Of the tables; made with its parents.

    Returns:
        What was written; nothing where no rows are recorded.
    """
    frame = recorded(folder)
    if frame is None:
        return []
    made = {
        "speed_bars.csv": bars_table(frame),
        "speed.csv": renderers_table(frame),
        "speed_whole.csv": whole_table(frame),
        "speed_growth.csv": growth_table(frame),
    }
    contents: dict[str, pd.DataFrame | str] = {n: t for n, t in made.items() if len(t)}
    contents["speed.txt"] = verdict(frame)
    return shared.write(contents, out)
