"""What was asked of the renderers, and whether the newest rows meet it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from eval.rows import latest
from eval.speed.findings import (
    EXPERIMENT,
    GPU_BRAIN,
    GROWTH,
    INTEGRATED,
    LITERAL,
    STORE,
    TILES,
    WHOLE,
)
from medil.errors import InputError

MET, NOT_MET, UNKNOWN = "met", "not met", "not measured"
AT_LEAST, AT_MOST = "at least", "at most"
FINEST_MM = 0.35
ONE_RUN = pd.Timedelta("30min")  # a part's rows are recorded together, at its end


@dataclass(frozen=True)
class Bar:
    """One number that was promised.

    Args:
        says: What is compared, for people.
        kind: Of the condition.
        arm: Of the rows; empty: every arm of that kind.
        metric: Of the rows.
        sense: `AT_LEAST` or `AT_MOST`.
        limit: In the metric's unit.
        sizes: How the condition's sizes begin; any when empty.
        on_gpu: Whether rows of a GPU count, or those of a CPU.
    """

    says: str
    kind: str
    arm: str
    metric: str
    sense: str
    limit: float
    sizes: str = ""
    on_gpu: bool = False

    def holds(self, value: float) -> bool:
        """Whether a measured value meets the bar; NaN does not."""
        return value >= self.limit if self.sense == AT_LEAST else value <= self.limit

    def worst(self, values: pd.Series) -> int:
        """Index of the value that is farthest on the wrong side."""
        if values.isna().any():
            return int(values.isna().idxmax())
        return int(values.idxmin() if self.sense == AT_LEAST else values.idxmax())


BARS = (
    Bar("Literal LTE, separable, compiled: times faster than naive", LITERAL,
        "separable, compiled", "ratio_to_naive", AT_LEAST, 4),
    Bar("Literal LTE, separable, eager: times faster than naive", LITERAL,
        "separable, eager", "ratio_to_naive", AT_LEAST, 2.5),
    Bar("Literal LTE, separable, bf16: times faster than naive", LITERAL,
        "separable, bf16", "ratio_to_naive", AT_LEAST, 6),
    Bar("Literal LTE, float32: largest difference from naive, in standard deviations", LITERAL,
        "", "max_difference", AT_MOST, 1e-5),
    Bar("Cell-integrated LTE: times faster than naive literal, a voxel", INTEGRATED,
        "integrated", "ratio_to_naive", AT_LEAST, 150),
    Bar("Cell-integrated LTE: time over that of sub-pixel convolution", INTEGRATED,
        "integrated", "ratio_to_subpixel", AT_MOST, 2),
    Bar("Cell-integrated LTE: share of the ceiling that binds (%)", INTEGRATED,
        "integrated", "ceiling_share", AT_LEAST, 50),
    Bar("Brain at 1 mm, encode and decode: times faster than MONAI", WHOLE,
        "tiny", "ratio_to_monai", AT_LEAST, 8),
    Bar("Brain at 1 mm, encode and decode: peak memory over MONAI's", WHOLE,
        "tiny", "peak_ratio_to_monai", AT_MOST, 0.25),
    Bar("medil decode at 0.35 mm: peak memory over that at 1 mm", GROWTH,
        "", "peak_ratio_to_1_mm", AT_MOST, 1.3, f"{FINEST_MM:g} mm"),
    Bar("medil decode at 0.35 mm: peak memory (MB)", GROWTH,
        "", "peak_rss_mb", AT_MOST, 2000, f"{FINEST_MM:g} mm"),
    Bar("Tiled encode: largest error, in standard deviations of the latent", TILES,
        "", "max_error", AT_MOST, 1e-5),
    Bar("Training from the patch store: share of a step spent waiting (%)", STORE,
        "store", "waiting_share", AT_MOST, 1),
    Bar("GPU, cell-integrated LTE: share of the ceiling that binds (%)", INTEGRATED,
        "integrated", "ceiling_share", AT_LEAST, 50, on_gpu=True),
    Bar("GPU, a 0.5 mm brain: milliseconds of device time", GPU_BRAIN,
        "tiny", "device_ms", AT_MOST, 100, on_gpu=True),
)  # fmt: skip


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the newest run of each part and device, with the condition in parts.

    A timing is true for the code and the machine of its day, so every run appends its own. What
    a part recorded more than `ONE_RUN` before its newest row is of an older run.

    Args:
        frame: Recorded rows.

    Returns:
        The rows, with columns `kind`, `sizes` and `where`.

    Raises:
        InputError: No speed is recorded.
    """
    frame = frame[frame["experiment"] == EXPERIMENT]
    if frame.empty:
        raise InputError("there are no rows on speed; run: python -m eval.speed")
    frame = latest(frame)
    parts = frame["condition"].str.split(" | ", expand=True, regex=False)
    frame = frame.assign(kind=parts[0], sizes=parts[1], where=parts[2])
    last = frame.groupby(["kind", "where"])["recorded_at"].transform("max")
    return frame[frame["recorded_at"] > last - ONE_RUN].reset_index(drop=True)


def bars_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Every bar beside what the newest rows say; of several rows, the worst.

    Args:
        frame: Recorded rows.

    Returns:
        Bar, asked, measured, lowest and highest round, rounds, verdict, condition.

    Raises:
        InputError: No speed is recorded.
    """
    rows = newest(frame)
    return pd.DataFrame([_line(bar, rows) for bar in BARS])


def _line(bar: Bar, rows: pd.DataFrame) -> dict[str, str]:
    line = {"Bar": bar.says, "Asked": f"{bar.sense} {number(bar.limit)}"}
    found = rows[
        (rows["kind"] == bar.kind)
        & (rows["metric"] == bar.metric)
        & rows["sizes"].str.startswith(bar.sizes)
        & ((rows["device"] != "cpu") == bar.on_gpu)
    ]
    found = found[found["arm"] == bar.arm] if bar.arm else found
    if found.empty:
        blank = dict.fromkeys(("Measured", "Lowest to highest", "Rounds"), "")
        return {**line, **blank, "Verdict": UNKNOWN, "Measured on": ""}
    row = found.loc[bar.worst(found["value"])]
    low, high, n = (_beside(rows, row, end) for end in ("low", "high", "rounds"))
    return {
        **line,
        "Measured": number(row["value"]),
        "Lowest to highest": f"{number(low)} to {number(high)}" if low is not None else "",
        "Rounds": f"{n:.0f}" if n else "1",
        "Verdict": MET if bar.holds(row["value"]) else NOT_MET,
        "Measured on": f"{row['sizes']}, {row['where']}",
    }


def _beside(rows: pd.DataFrame, row: pd.Series, end: str) -> float | None:
    """The value that was recorded beside a row under its metric's name and an ending."""
    same = rows[
        (rows["arm"] == row["arm"])
        & (rows["condition"] == row["condition"])
        & (rows["metric"] == f"{row['metric']}_{end}")
    ]
    return None if same.empty else float(same["value"].iloc[0])


def number(value: float) -> str:
    """Three digits, in a form that people read: 1,234, 12.3, 0.04 or 3e-07."""
    if pd.isna(value):
        return "not finite"
    if value and abs(value) < 1e-2:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
