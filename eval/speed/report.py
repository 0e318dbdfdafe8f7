"""From prepared rows to the tables on speed; measures nothing."""

from __future__ import annotations

import pandas as pd

from eval.speed.bars import bars_table
from eval.speed.timing import GPU_BRAIN, GROWTH, INTEGRATED, LITERAL, NAME, TRAINING, WHOLE
from eval.tables import three_digits

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


def renderers_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Nanoseconds per voxel of every renderer, the slowest first."""
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
            "ns a voxel": wide["ns_per_voxel"].map(three_digits).to_list(),
            "Lowest to highest": [
                f"{three_digits(low)} to {three_digits(high)}"
                for low, high in zip(
                    wide["ns_per_voxel_low"], wide["ns_per_voxel_high"], strict=True
                )
            ],
            "Rounds": wide["ns_per_voxel_rounds"].map("{:.0f}".format).to_list(),
        }
    )


def whole_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Whole brains: seconds to encode, decode and decode finer, and peak memory."""
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
    columns = {
        "On": wide["where"],
        "Process": [arms.get(arm, arm) for arm in wide["arm"]],
        "Voxels": wide["sizes"],
    }
    columns |= {
        title: wide[name].map(lambda v: "" if pd.isna(v) else three_digits(v))
        for name, title in names.items()
        if name in wide
    }
    return pd.DataFrame(columns)


def growth_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`medil decode` at several voxel sizes: voxels, seconds, peak memory and its growth."""
    rows = rows[rows["kind"] == GROWTH]
    if rows.empty:
        return pd.DataFrame()
    wide = rows.pivot_table(index=["sizes", "where"], columns="metric", values="value")
    wide = wide.reset_index().sort_values("n_voxels", ignore_index=True)
    return pd.DataFrame(
        {
            "Voxel": wide["sizes"],
            "Voxels (million)": (wide["n_voxels"] / 1e6).map(three_digits),
            "Seconds": wide["seconds"].map(three_digits),
            "Peak memory (MB)": wide["peak_rss_mb"].map(three_digits),
            "Peak over that at 1 mm": wide["peak_ratio_to_1_mm"].map("{:.2f}".format),
            "On": wide["where"],
        }
    )


def gpu_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Jobs on a GPU beside the renderers: a whole brain, a training step."""
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
            "On the device (ms)": on_device.map(lambda v: "" if pd.isna(v) else three_digits(v)),
            "In all (ms)": (1e3 * wide["seconds"]).map(three_digits),
            "Peak memory there (MB)": wide["peak_cuda_mb"].map(three_digits),
        }
    )


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem."""
    return {
        f"{NAME}_bars": bars_table(rows),
        NAME: renderers_table(rows),
        f"{NAME}_whole": whole_table(rows),
        f"{NAME}_growth": growth_table(rows),
    }
