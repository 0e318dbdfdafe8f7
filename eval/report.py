"""From recorded rows to the tables that pages print: nothing here measures anything.

    python -m eval.report

reads ``eval/results/reconstruction.jsonl`` and writes ``_build/tables/*.csv``, the sentence
``verdict.txt`` and, about the rows themselves, ``provenance.txt``. Model rows count only if
they belong to the newest weights. Where the ablation or the latents' consistency are recorded
beside them, their tables are written too (`eval.ablation_report`, `eval.consistency_report`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from eval import ablation_report, consistency_report
from eval.reconstruction import EXPERIMENT as RECONSTRUCTION
from eval.release import EXPERIMENT as RELEASE
from eval.rows import RESULTS, latest, parts, read_rows
from eval.subjects import CONDITIONS
from medil.baselines import LINEAR_CODECS
from medil.errors import InputError
from medil.files import atomic_output

TABLES = Path("_build/tables")
NATIVE = "native -> native"
ARMS = {  # arm in the rows -> name in tables, kind
    "medil": ("MedIL", "learned"),
    "medil_splines": ("MedIL, splines alone", "network left out"),
    "cubic": ("Averaged, then cubic splines", "linear codec"),
    "dct_cube": ("DCT, lowest cube", "linear codec"),
    "dct_ball": ("DCT, lowest ball", "linear codec"),
    "bspline": ("B-spline, least squares", "linear codec"),
    "dct_best": ("DCT, largest (oracle)", "oracle, not a rival"),
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
GAIN = "Above best linear (dB)"


def current(frame: pd.DataFrame) -> pd.DataFrame:
    """The newest row of each measurement, of the newest weights only.

    A table must not mix two releases: rows of older weights are left out even where the
    newer ones were not measured. Other experiments, which have many weights, are left out.
    """
    frame = frame[frame["experiment"].isin([RECONSTRUCTION, RELEASE])]
    newest = latest(frame)
    weights = newest["weights_sha256"]
    of_models = newest[weights != ""]
    if of_models.empty:
        return newest
    last = of_models.sort_values("recorded_at", kind="stable")["weights_sha256"].iloc[-1]
    # Chosen before `latest`, so that a re-measured old release cannot hide the new one.
    return latest(frame[frame["weights_sha256"].isin(["", last])])


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
    chosen = table[(table["subject"] == key_subject(table)) & (table["condition"] == NATIVE)]
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


def grids_table(table: pd.DataFrame) -> pd.DataFrame:
    """Every arm, subject and pair of grids."""
    order = table.sort_values(
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
                "In (mm)": _times(model["spacing_in_mm"]),
                "Out (mm)": _times(model["spacing_out_mm"]),
                "Numbers per voxel": f"{model['numbers_per_voxel']:.3f}",
                "MedIL (dB)": f"{model['psnr']:.2f}",
                "Splines alone (dB)": _decimals(arms["psnr"].get("medil_splines"), 2),
                "Best linear codec (dB)": f"{linear[best]:.2f} ({SHORT[best]})",
                "MedIL above it (dB)": _with_sign(model["gain_db"]),
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
    """What is known of the weights: size, training time, hash."""
    known = frame[frame["experiment"] == RELEASE]
    lines = [
        {"Quantity": r.metric.replace("_", " "), "Value": _plain(r.value), "Unit": r.unit}
        for r in known.itertuples()
    ]
    for name, column in (("weights, SHA-256", "weights_sha256"), ("measured at commit", "commit")):
        values = frame.loc[frame["weights_sha256"] != "", column].unique()
        lines += [{"Quantity": name, "Value": v[:12], "Unit": "first 12 digits"} for v in values]
    return pd.DataFrame(lines, columns=["Quantity", "Value", "Unit"])


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
        f"{_signed(model['gain_db'])} the best linear codec of that size "
        f"({ARMS[best][0]}, {chosen.loc[best, 'psnr']:.2f} dB); n = 1 volume."
    )
    native = table[(table["arm"] == "medil") & (table["condition"] == NATIVE)]["gain_db"]
    if len(native) > 1:
        sentence += (
            f" On its own grid, each of n = {len(native)} held-out volumes: mean "
            f"{_signed(native.mean())}, from {native.min():+.2f} to {native.max():+.2f} dB; "
            f"{(native > 0).sum()} of {len(native)} above."
        )
    return sentence


def provenance(frame: pd.DataFrame) -> str:
    """One sentence: when, at which commit, on what and with which weights rows were recorded."""

    def joined(values) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    commits = frame["commit"].str[:7] + frame["dirty"].map({True: "+", False: ""})
    days = frame["recorded_at"].dt.strftime("%Y-%m-%d")
    weights = frame.loc[frame["weights_sha256"] != "", "weights_sha256"].str[:12]
    return (
        f"Recorded {joined(days)} at commit {joined(commits)} (device {joined(frame['device'])}, "
        f"threads {joined(frame['threads'])}, profile {joined(frame['profile'])}, weights "
        f"{joined(weights) or 'none'}): {len(frame):,} rows, each of one volume."
    )


def scan_name(subject: str) -> str:
    """A subject's name for people: what tells it apart, with spaces.

    Example:
        >>> scan_name("cross_sectional_patient07_T1_MNI")
        'patient07 T1 MNI'
    """
    for prefix in ("cross_sectional_", "longitudinal_"):
        subject = subject.removeprefix(prefix)
    return subject.replace("_", " ")


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, for notebooks: text to the left, numbers to the right.

    Fractions get two decimals in columns whose header names dB, three in others.
    """

    def text(name: str, value) -> str:
        return (
            _decimals(value, 2 if "dB" in name else 3) if isinstance(value, float) else str(value)
        )

    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in table]
    lines = [[str(name) for name in table], ["---:" if n else ":---" for n in numeric]]
    lines += [
        [text(str(name), value) for name, value in zip(table, line, strict=True)]
        for line in table.itertuples(index=False)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def _decimals(value: float | None, n: int) -> str:
    return "" if pd.isna(value) else f"{value:.{n}f}"


def _with_sign(value: float, n: int = 2) -> str:
    return "" if pd.isna(value) else f"{round(value, n) + 0.0:+.{n}f}"  # no "-0.00"


def _times(spacing: str) -> str:
    return spacing.replace(" x ", " × ")


def _signed(difference_db: float) -> str:
    return f"{abs(difference_db):.2f} dB {'above' if difference_db >= 0 else 'below'}"


def _display(table: pd.DataFrame) -> pd.DataFrame:
    """Columns and headers for people; every column in one number of decimals."""
    result = pd.DataFrame(
        {
            "Code": [ARMS.get(a, (a, ""))[0] for a in table["arm"]],
            "Kind": [ARMS.get(a, ("", "other"))[1] for a in table["arm"]],
            "Scan": [scan_name(s) for s in table["subject"]],
            "Condition": table["condition"].to_numpy(),
            "Encoded at (mm)": [_times(s) for s in table["spacing_in_mm"]],
            "Rendered at (mm)": [_times(s) for s in table["spacing_out_mm"]],
            "Numbers kept": table["numbers_kept"].to_numpy(),
            "Numbers per voxel": [f"{n:.3f}" for n in table["numbers_per_voxel"]],
            "PSNR (dB)": [_decimals(v, METRICS["psnr"][1]) for v in table["psnr"]],
            GAIN: [_with_sign(v) for v in table["gain_db"]],
        }
    )
    for name, (header, decimals) in METRICS.items():
        result[header] = [_decimals(v, decimals) for v in table[name]]
    result["n"] = 1
    return result


def write(rows_path: Path, out: Path) -> list[Path]:
    """Write every table.

    Args:
        rows_path: The reconstruction's rows, or the folder that holds ``reconstruction.jsonl``.
        out: Folder of the tables; made with its parents.

    Returns:
        What was written.

    Raises:
        InputError: No rows, or none that the tables need.
    """
    folder = rows_path if rows_path.is_dir() else rows_path.parent
    own = rows_path / f"{RECONSTRUCTION}.jsonl" if rows_path.is_dir() else rows_path
    frame = current(read_rows(own))
    table = wide(frame[frame["experiment"] == RECONSTRUCTION])
    tables = {
        "reconstruction.csv": reconstruction_table(table),
        "reconstruction_grids.csv": grids_table(table),
        "renderings.csv": renderings_table(table),
        "codecs.csv": codecs_table(table),
        "release.csv": release_table(frame),
    }
    texts = {name: t.to_csv(index=False) for name, t in tables.items()}
    texts["verdict.txt"] = verdict(table) + "\n"
    texts["provenance.txt"] = provenance(frame) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with atomic_output(out / name, force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    written = [out / name for name in texts]
    if parts(ablation := folder / "ablation.jsonl"):
        written += ablation_report.write(ablation, out)
    return written + consistency_report.tables(folder, out)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one sentence about missing rows."""
    parser = argparse.ArgumentParser(prog="python -m eval.report", description=__doc__)
    parser.add_argument("--rows", type=Path, default=RESULTS, help="rows file or folder")
    parser.add_argument("--out", type=Path, default=TABLES, help="folder of the tables")
    options = parser.parse_args(arguments)
    try:
        written = write(options.rows, options.out)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for path in written:
        print(path)
    print((options.out / "verdict.txt").read_text(encoding="utf-8").strip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
