"""From the reconstruction's rows to its tables and its verdict: nothing here measures anything."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from eval.reconstruction.measure import EXPERIMENT as RECONSTRUCTION
from eval.reconstruction.release import EXPERIMENT as RELEASE
from eval.rows import latest, read_rows
from eval.subjects import CONDITIONS
from eval.tables import decimals, plain, provenance, scan_name, signed_db, times, with_sign, write
from medil.errors import InputError
from medil.model.codecs import LINEAR_CODECS

NATIVE = "native -> native"
SCAN = "scan"  # the arm that is no code: the scan itself
ARMS = {  # arm in the rows -> name in tables, kind
    "medil": ("MedIL", "learned"),
    "medil_base": ("MedIL base", "learned"),
    "medil_splines": ("MedIL, splines alone", "network left out"),
    "cubic": ("Averaged, then cubic splines", "linear codec"),
    "dct_cube": ("DCT, lowest cube", "linear codec"),
    "dct_ball": ("DCT, lowest ball", "linear codec"),
    "bspline": ("B-spline, least squares", "linear codec"),
    "dct_best": ("DCT, largest (oracle)", "oracle, not a rival"),
    "scan": ("The scan itself", "no compression"),
    "interpolation": ("Cubic interpolation of every voxel", "no compression"),
}
SHORT = {"cubic": "cubic", "dct_cube": "cube", "dct_ball": "ball", "bspline": "B-spline"}
METRICS = {  # metric in the rows -> header, decimals
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 3),
    "hfen": ("HFEN", 3),
    "nrmse": ("NRMSE", 3),
    "gradient_error": ("Gradient error", 3),
}
STRUCTURE = {  # those of the second table, about detail and anatomy
    "ms_ssim": ("MS-SSIM", 3),
    "fsc_05_mm": ("Resolution, FSC 0.5 (mm)", 2),
    "fsc_0143_mm": ("Resolution, FSC 0.143 (mm)", 2),
    "edge_width_mm": ("Edge width (mm)", 2),
    "dice_grey": ("Dice, grey", 3),
    "dice_white": ("Dice, white", 3),
    "components_per_cm3": ("Pieces of white matter (per cm³)", 2),
    "handles_per_cm3": ("Handles of white matter (per cm³)", 2),
    "lpips": ("LPIPS", 3),
}
GAIN = "Above best linear (dB)"


def current(frame: pd.DataFrame) -> pd.DataFrame:
    """The newest row of each measurement, of each arm's newest weights only.

    A table must not mix two versions of a release: rows of older weights are left out even
    where the newer ones were not measured. Other experiments are left out.
    """
    frame = frame[frame["experiment"].isin([RECONSTRUCTION, RELEASE])]
    newest = latest(frame).sort_values("recorded_at", kind="stable")
    last = newest.groupby("arm")["weights_sha256"].last()
    # Chosen before `latest`, so that a re-measured old release cannot hide the new one.
    return latest(frame[frame["weights_sha256"] == frame["arm"].map(last)])


def wide(frame: pd.DataFrame) -> pd.DataFrame:
    """One line a subject, condition and arm, one column a metric, and the gain in dB.

    Args:
        frame: Rows of the experiment, one a metric.

    Returns:
        The fields that say what was measured, the metrics by their names in the rows, and
        `gain_db`: PSNR minus that of the best linear codec on the same subject and condition.
    """
    what = ["subject", "condition", "arm", "spacing_in_mm", "spacing_out_mm"]
    what += ["numbers_kept", "numbers_per_voxel"]
    table = frame.pivot_table(index=what, columns="metric", values="value", aggfunc="last")
    table = table.reset_index()
    linear = table[table["arm"].isin(LINEAR_CODECS)]
    best = linear.groupby(["subject", "condition"])["psnr"].max().rename("best_linear_db")
    table = table.join(best, on=["subject", "condition"])
    table["gain_db"] = table["psnr"] - table["best_linear_db"]
    return table


def key_subject(table: pd.DataFrame) -> str:
    """The real brain at 1 mm, or what stands in for it.

    Raises:
        InputError: Nothing at 1 mm was recorded on its own grid.
    """
    at_1_mm = table[(table["condition"] == NATIVE) & (table["spacing_in_mm"] == "1")]
    names = sorted(at_1_mm["subject"].unique(), key=lambda n: not n.startswith("cross_sectional"))
    if not names:
        raise InputError("the rows hold no volume at 1 mm on its own grid; record one first.")
    return names[0]


def reconstruction_table(table: pd.DataFrame) -> pd.DataFrame:
    """Every arm on the key volume at 1 mm inside the brain, best PSNR first."""
    chosen = table[
        (table["arm"] != SCAN)
        & (table["subject"] == key_subject(table))
        & (table["condition"] == NATIVE)
    ]
    result = _display(chosen.sort_values("psnr", ascending=False, kind="stable"))
    return result.drop(
        columns=[
            "Scan",
            "Condition",
            "Encoded at (mm)",
            "Rendered at (mm)",
            "Numbers kept",
            "NRMSE",
        ]
    )


def structure_table(table: pd.DataFrame) -> pd.DataFrame:
    """Detail and anatomy of the key volume itself and of every arm on it, in the order of PSNR.

    LPIPS is there only where the weights of its network could be loaded.
    """
    chosen = table[(table["subject"] == key_subject(table)) & (table["condition"] == NATIVE)]
    order = chosen["psnr"].where(chosen["arm"] != SCAN, float("inf"))  # an exact copy
    chosen = chosen.loc[order.sort_values(ascending=False, kind="stable").index]
    lines = {"Code": [ARMS.get(a, (a, ""))[0] for a in chosen["arm"]]}
    for name, (header, places) in STRUCTURE.items():
        values = chosen[name] if name in chosen else pd.Series(float("nan"), chosen.index)
        missing = "weights not available" if name == "lpips" else ""
        lines[header] = [decimals(v, places) or missing for v in values]
    return pd.DataFrame(lines | {"n": 1})


def grids_table(table: pd.DataFrame) -> pd.DataFrame:
    """Every arm, subject and pair of grids."""
    order = table[table["arm"] != SCAN].sort_values(
        ["subject", "condition", "psnr"], ascending=[True, True, False], kind="stable"
    )
    return _display(order)


def renderings_table(table: pd.DataFrame) -> pd.DataFrame:
    """One line a subject and pair of grids: the model, its splines, the best linear codec."""
    lines = []
    order = {name: place for place, name in enumerate(CONDITIONS)}  # its own grid first
    groups = table.groupby(["subject", "condition"])
    for _, group in sorted(groups, key=lambda pair: (pair[0][0], order.get(pair[0][1], 99))):
        arms = group.set_index("arm")
        linear = arms[arms.index.isin(LINEAR_CODECS)]["psnr"]
        if "medil" not in arms.index or linear.empty:
            continue
        model, best = arms.loc["medil"], linear.idxmax()
        lines.append(
            {
                "Scan": scan_name(model["subject"]),
                "In (mm)": times(model["spacing_in_mm"]),
                "Out (mm)": times(model["spacing_out_mm"]),
                "Numbers per voxel": f"{model['numbers_per_voxel']:.3f}",
                "MedIL (dB)": f"{model['psnr']:.2f}",
                "Splines alone (dB)": decimals(arms["psnr"].get("medil_splines"), 2),
                "Best linear codec (dB)": f"{linear[best]:.2f} ({SHORT[best]})",
                "MedIL above it (dB)": with_sign(model["gain_db"]),
                "Base above it (dB)": with_sign(arms["gain_db"].get("medil_base", math.nan)),
                "n": 1,
            }
        )
    return pd.DataFrame(lines)


def codecs_table(table: pd.DataFrame) -> pd.DataFrame:
    """The codecs over all volumes on their own grids: mean, spread and n."""
    native = table[(table["condition"] == NATIVE) & table["arm"].isin([*LINEAR_CODECS, "dct_best"])]
    lines = []
    for arm, group in sorted(native.groupby("arm"), key=lambda pair: -pair[1]["psnr"].mean()):
        lines.append(
            {
                "Codec": ARMS[arm][0],
                "Numbers per voxel, mean": f"{group['numbers_per_voxel'].mean():.3f}",
                "PSNR, mean (dB)": f"{group['psnr'].mean():.2f}",
                "Lowest (dB)": f"{group['psnr'].min():.2f}",
                "Highest (dB)": f"{group['psnr'].max():.2f}",
                "SSIM, mean": f"{group['ssim'].mean():.3f}",
                "HFEN, mean": f"{group['hfen'].mean():.3f}",
                "n": len(group),
            }
        )
    return pd.DataFrame(lines)


def release_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What is known of each release's weights: size, training time, hash."""
    known = frame[frame["experiment"] == RELEASE]
    lines = []
    for name, own in known.groupby("subject", sort=False):
        lines += [
            {"Release": name, "Quantity": r.metric.replace("_", " "), "Value": plain(r.value),
             "Unit": r.unit}
            for r in own.itertuples()
        ]  # fmt: skip
        measured = frame[frame["arm"] == own["arm"].iloc[0]]
        for title, column in (
            ("weights, SHA-256", "weights_sha256"),
            ("measured at commit", "commit"),
        ):
            lines += [
                {"Release": name, "Quantity": title, "Value": v[:12],
                 "Unit": "first 12 digits"}
                for v in measured[column].unique()
            ]  # fmt: skip
    return pd.DataFrame(lines, columns=["Release", "Quantity", "Value", "Unit"])


def verdict(table: pd.DataFrame) -> str:
    """One or two sentences: does the model beat the best linear codec of its size?"""
    subject = key_subject(table)
    chosen = table[(table["subject"] == subject) & (table["condition"] == NATIVE)]
    chosen = chosen.set_index("arm")
    if "medil" not in chosen.index:
        raise InputError(f"the rows hold no MedIL result on {subject}; record one first.")
    model, linear = chosen.loc["medil"], chosen[chosen.index.isin(LINEAR_CODECS)]
    best = linear["psnr"].idxmax()
    sentence = (
        f"On {scan_name(subject)} at 1 mm, inside the brain, MedIL reaches {model['psnr']:.2f} dB "
        f"with {model['numbers_kept']:,.0f} numbers ({model['numbers_per_voxel']:.3f} per voxel): "
        f"{signed_db(model['gain_db'])} the best linear codec of that size "
        f"({ARMS[best][0]}, {chosen.loc[best, 'psnr']:.2f} dB); n = 1 volume."
    )
    native = table[(table["arm"] == "medil") & (table["condition"] == NATIVE)]["gain_db"]
    if len(native) > 1:
        sentence += (
            f" On its own grid, each of n = {len(native)} held-out volumes: mean "
            f"{signed_db(native.mean())}, from {native.min():+.2f} to {native.max():+.2f} dB; "
            f"{(native > 0).sum()} of {len(native)} above."
        )
    return sentence + base_words(table)


def base_words(table: pd.DataFrame) -> str:
    """A sentence on the larger release beside the small one; none if it was not measured."""
    native = table[table["condition"] == NATIVE].pivot(
        index="subject", columns="arm", values="psnr"
    )
    if "medil_base" not in native:
        return ""
    apart = (native["medil_base"] - native["medil"]).dropna()
    return (
        f" The larger release `base` lies {signed_db(apart.mean())} the small one (mean of "
        f"n = {len(apart)} volumes, from {apart.min():+.2f} to {apart.max():+.2f} dB)."
    )


def _display(table: pd.DataFrame) -> pd.DataFrame:
    """Columns and headers for people; every column in one number of decimals."""
    result = pd.DataFrame(
        {
            "Code": [ARMS.get(a, (a, ""))[0] for a in table["arm"]],
            "Kind": [ARMS.get(a, ("", "other"))[1] for a in table["arm"]],
            "Scan": [scan_name(s) for s in table["subject"]],
            "Condition": table["condition"].to_numpy(),
            "Encoded at (mm)": [times(s) for s in table["spacing_in_mm"]],
            "Rendered at (mm)": [times(s) for s in table["spacing_out_mm"]],
            "Numbers kept": table["numbers_kept"].to_numpy(),
            "Numbers per voxel": [f"{n:.3f}" for n in table["numbers_per_voxel"]],
            "PSNR (dB)": [decimals(v, METRICS["psnr"][1]) for v in table["psnr"]],
            GAIN: [with_sign(v) for v in table["gain_db"]],
        }
    )
    for name, (header, places) in METRICS.items():
        result[header] = [decimals(v, places) for v in table[name]]
    result["n"] = 1
    return result


def tables(rows_path: Path, out: Path) -> list[Path]:
    """Write every table of the reconstruction.

    Args:
        rows_path: Its rows, or the folder that holds ``reconstruction.jsonl``.
        out: Folder of the tables; made with its parents.

    Returns:
        What was written.

    Raises:
        InputError: No rows, or none that the tables need.
    """
    path = rows_path / f"{RECONSTRUCTION}.jsonl" if rows_path.is_dir() else rows_path
    frame = current(read_rows(path))
    table = wide(frame[frame["experiment"] == RECONSTRUCTION])
    return write(
        {
            "reconstruction.csv": reconstruction_table(table),
            "reconstruction_structure.csv": structure_table(table),
            "reconstruction_grids.csv": grids_table(table),
            "renderings.csv": renderings_table(table),
            "codecs.csv": codecs_table(table),
            "release.csv": release_table(frame),
            "verdict.txt": verdict(table),
            "provenance.txt": provenance(frame),
        },
        out,
    )
