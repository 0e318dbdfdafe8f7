"""Ratios that the experiment is about, and the bars that maintainers set for them beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from eval.speed.timing import GPU_BRAIN, GROWTH, INTEGRATED, LITERAL, STORE, TILES, WHOLE
from eval.tables import three_digits, times

MET, NOT_MET, UNKNOWN = "met", "not met", "not measured"
AT_LEAST, AT_MOST = "at least", "at most"
FINEST_MM = 0.35


@dataclass(frozen=True)
class Bar:
    """One measured quantity and the limit that was set for it."""

    says: str  # what is compared, for people
    kind: str  # of the condition
    arm: str  # of the rows; every arm of that kind when empty
    metric: str
    sense: str  # `AT_LEAST` or `AT_MOST`
    limit: float  # in the metric's unit
    sizes: str = ""  # how the condition's sizes begin
    on_gpu: bool = False  # whether rows of a GPU count, or those of a CPU


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


def bars_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every bar beside the newest rows; where several rows match, the worst counts."""
    return pd.DataFrame([_line(bar, rows) for bar in BARS])


def ratios_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The measured quantities of `bars_table`, without the bars."""
    table = bars_table(rows).drop(columns=["Asked", "Verdict"]).rename(columns={"Bar": "Quantity"})
    table["Measured on"] = table["Measured on"].str.replace("^3", "³", regex=False).map(times)
    return table[table["Measured"] != ""]


def _line(bar: Bar, rows: pd.DataFrame) -> dict[str, str]:
    line = {"Bar": bar.says, "Asked": f"{bar.sense} {three_digits(bar.limit)}"}
    own = rows[
        (rows["kind"] == bar.kind)
        & (rows["metric"] == bar.metric)
        & rows["sizes"].str.startswith(bar.sizes)
        & ((rows["device"] != "cpu") == bar.on_gpu)
        & (rows["arm"].eq(bar.arm) if bar.arm else True)
    ]
    if own.empty:
        blank = dict.fromkeys(("Measured", "Lowest to highest", "Rounds"), "")
        return {**line, **blank, "Verdict": UNKNOWN, "Measured on": ""}
    excess = (own["value"] - bar.limit) * (1 if bar.sense == AT_MOST else -1)
    excess = excess.fillna(float("inf"))  # how far on the wrong side
    row = own.loc[excess.idxmax()]
    same = rows[(rows["arm"] == row["arm"]) & (rows["condition"] == row["condition"])]
    beside = same.set_index("metric")["value"]
    low, high, n = (beside.get(f"{bar.metric}_{end}") for end in ("low", "high", "rounds"))
    return {
        **line,
        "Measured": three_digits(row["value"]),
        "Lowest to highest": "" if n is None else f"{three_digits(low)} to {three_digits(high)}",
        "Rounds": "1" if n is None else f"{n:.0f}",
        "Verdict": MET if excess.max() <= 0 else NOT_MET,
        "Measured on": f"{row['sizes']}, {row['where']}",
    }
