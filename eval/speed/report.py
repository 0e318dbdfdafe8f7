"""From prepared rows to the tables on speed; measures nothing."""

from __future__ import annotations

import pandas as pd

from eval.speed.bars import ratios_table
from eval.speed.timing import (
    GPU_BRAIN,
    GROWTH,
    INTEGRATED,
    LITERAL,
    LIVE,
    NAME,
    PAGE,
    TRAINING,
    UNITS,
    WHOLE,
)
from eval.tables import three_digits, times

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


KEYS = ["kind", "arm", "sizes", "where"]


def wide(rows: pd.DataFrame, *kinds: str) -> pd.DataFrame:
    """One line an arm and condition of these kinds, one column a metric, NaN where it has none."""
    own = rows[rows["kind"].isin(kinds)]
    table = own.pivot_table(index=KEYS, columns="metric", values="value", sort=False)
    metrics = [f"{name}{end}" for name in UNITS for end in ("", "_low", "_high", "_rounds")]
    return table.reset_index().reindex(columns=[*KEYS, *metrics])


def value(rows: pd.DataFrame, kind: str, arm: str, metric: str, where: str) -> float:
    """The value of one arm and metric; NaN without one."""
    own = wide(rows, kind)
    return own[(own["arm"] == arm) & (own["where"] == where)][metric].max()


def digits(column: pd.Series) -> pd.Series:
    """Numbers as texts of three digits; blank where there is none."""
    return column.map(three_digits, na_action="ignore").astype(object).fillna("")


def cubes(sizes: str) -> str:
    """Sizes for people: ``96^3 from 48^3 x 64 channels`` with real signs."""
    return times(sizes.replace("^3", "³"))


def renderers_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Nanoseconds per voxel of every renderer, the slowest first."""
    table = wide(rows, LITERAL, INTEGRATED).dropna(subset="ns_per_voxel")
    table = table.sort_values("ns_per_voxel", ascending=False)
    low, high = (digits(table[f"ns_per_voxel_{end}"]) for end in ("low", "high"))
    return pd.DataFrame(
        {
            "Renderer": table["arm"].replace(TITLES),
            "Voxels and features": table["sizes"].map(cubes),
            "On": table["where"],
            "ns a voxel": digits(table["ns_per_voxel"]),
            "Lowest to highest": low + " to " + high,
            "Rounds": digits(table["ns_per_voxel_rounds"]),
        }
    )


def whole_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Whole brains: seconds to encode, decode and decode finer, and peak memory."""
    table = wide(rows, WHOLE)
    arms = {"tiny": "MedIL tiny", "monai": "MONAI AutoencoderKL (32, 64, 64)"}
    return pd.DataFrame(
        {
            "On": table["where"],
            "Process": table["arm"].replace(arms),
            "Voxels": table["sizes"].map(cubes),
            "Encode (s)": digits(table["encode_s"]),
            "Decode (s)": digits(table["decode_s"]),
            "Decode to 0.5 mm (s)": digits(table["resized_s"]),
            "Peak memory (MB)": digits(table["peak_rss_mb"]),
        }
    )


def growth_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`medil decode` at several voxel sizes: voxels, seconds, peak memory and its growth."""
    table = wide(rows, GROWTH).sort_values("n_voxels")
    return pd.DataFrame(
        {
            "Voxel": table["sizes"],
            "Voxels (million)": digits(table["n_voxels"] / 1e6),
            "Seconds": digits(table["seconds"]),
            "Peak memory (MB)": digits(table["peak_rss_mb"]),
            "Peak over that at 1 mm": table["peak_ratio_to_1_mm"].map("{:.2f}".format),
            "On": table["where"],
        }
    )


def gpu_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Jobs on a GPU beside the renderers: a whole brain, a training step."""
    table = wide(rows[rows["device"] != "cpu"], GPU_BRAIN, TRAINING)
    return pd.DataFrame(
        {
            "Job": table["kind"] + ", " + table["arm"] + ", " + table["sizes"].map(cubes),
            "On": table["where"],
            "On the device (ms)": digits(table["device_ms"]),
            "In all (ms)": digits(1e3 * table["seconds"]),
            "Peak memory there (MB)": digits(table["peak_cuda_mb"]),
        }
    )


def live_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Frames a second of the live picture of the first page, in a browser on this computer."""
    table = wide(rows, LIVE)
    low, high = (digits(table[f"frames_per_cpu_s_{end}"]) for end in ("low", "high"))
    return pd.DataFrame(
        {
            "The voxels lie": table["arm"],
            "Picture": table["sizes"].map(times),
            "Frames a second of CPU time": digits(table["frames_per_cpu_s"]),
            "Lowest to highest": low + " to " + high,
            "Rounds": digits(table["frames_per_cpu_s_rounds"]),
        }
    )


def page_minutes(rows: pd.DataFrame) -> pd.DataFrame:
    """Minutes to run each page of the book: of CPU time on one thread, by the clock on a GPU.

    Columns: page (name of its notebook), sizes (its profile), where, minutes.
    """
    kinds = [kind for kind in rows["kind"].unique() if kind.startswith(f"{PAGE} ")]
    table = wide(rows, *kinds).sort_values("kind")
    on_cpu = table["where"].str.contains("thread")
    return pd.DataFrame(
        {
            "page": table["kind"].str.removeprefix(f"{PAGE} "),
            "sizes": table["sizes"],
            "where": table["where"].where(~on_cpu, "one thread of a CPU"),
            "minutes": table["seconds"].where(~on_cpu, table["cpu_s"]).astype(float) / 60,
        }
    )


def pages_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Minutes to run each page of the book."""
    table = page_minutes(rows)
    return pd.DataFrame(
        {
            "Page": table["page"],
            "Run as": table["sizes"],
            "On": table["where"],
            "Minutes": table["minutes"].map("{:.1f}".format),
        }
    )


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem."""
    return {
        f"{NAME}_ratios": ratios_table(rows),
        NAME: renderers_table(rows),
        f"{NAME}_whole": whole_table(rows),
        f"{NAME}_growth": growth_table(rows),
        f"{NAME}_live": live_table(rows),
        f"{NAME}_pages": pages_table(rows),
    }
