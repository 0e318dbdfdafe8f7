"""From the reconstruction's rows to its tables and its verdict; measures nothing."""

from __future__ import annotations

import math

import pandas as pd

from eval import primary, rows
from eval.cited import cited
from eval.coders.base import LINEAR, MEDIL, SPLINES, TITLES, kind_of, models, title_of
from eval.pairs import compared, interval
from eval.reconstruction import curve, precision
from eval.reconstruction.measure import NAME, RELEASE
from eval.subjects import CONDITIONS
from eval.tables import decimals, plain, scan_name, signed_db, times, with_sign
from medil.model.weights import short_digest

NATIVE = "native -> native"
SCAN = "scan"  # the arm that is no code: the scan itself
SHORT = {
    "cubic": "cubic",
    "dct_cube": "cube",
    "dct_ball": "ball",
    "bspline": "B-spline",
    "bspline_neighbours": "neighbours",
}
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
    "edge_width_mm": ("Edge width (mm)", 2),
    "dice_grey": ("Dice, grey", 3),
    "dice_white": ("Dice, white", 3),
    "components_per_cm3": ("Pieces of white matter (per cm³)", 2),
    "handles_per_cm3": ("Handles of white matter (per cm³)", 2),
    "lpips": ("LPIPS", 3),
}
GAIN = "Above best linear (dB)"
SAME_SIZE = 1.25  # codecs whose count of numbers differs by no more are of a model's size


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """The newest row of each measurement and size, of each arm's newest weights only.

    A table must not mix two versions of a release: rows of older weights are left out even
    where the newer ones were not measured. Codecs of two sizes stay apart.
    """
    frame = frame[frame["experiment"].isin([NAME, RELEASE, precision.NAME])]
    return rows.newest(frame, ("weights_sha256",), (*rows.WHAT, "numbers_kept"))


def wide(frame: pd.DataFrame) -> pd.DataFrame:
    """One line a subject, condition, arm and size; one column a metric; the gain in dB.

    Args:
        frame: Prepared rows.

    Returns:
        The fields that say what was measured; the metrics by their names in the rows; `rival`
        and `rival_db`, the best linear codec of the same size on that subject and condition,
        and its PSNR; `gain_db`, the line's PSNR minus that. NaN where no such codec is recorded.
    """
    what = ["subject", "condition", "arm", "spacing_in_mm", "spacing_out_mm"]
    what += ["numbers_kept", "numbers_per_voxel"]
    frame = frame[frame["experiment"] == NAME]
    table = frame.pivot_table(index=what, columns="metric", values="value", aggfunc="last")
    columns = dict.fromkeys([*what, *METRICS, *frame["metric"].unique()])
    table = table.reset_index().reindex(columns=list(columns))
    table = table.join(_best_linear(table))
    return table.assign(gain_db=table["psnr"] - table["rival_db"])


def _best_linear(table: pd.DataFrame) -> pd.DataFrame:
    """`rival` and `rival_db` of each line that has one."""
    # A codec can keep no more numbers than there are voxels, a small latent on coarse ones can.
    table = table.assign(size=table["numbers_kept"] / table["numbers_per_voxel"].clip(lower=1))
    keys = ["subject", "condition"]
    linear = table[table["arm"].isin(LINEAR)].dropna(subset="psnr")
    linear = linear[[*keys, "arm", "size", "psnr"]]
    pairs = table.reset_index(names="line").merge(linear, on=keys, suffixes=("", "_linear"))
    apart = (pairs["size_linear"] / pairs["size"]).map(math.log).abs()
    nearest = apart == apart.groupby([pairs["line"], pairs["arm_linear"]]).transform("min")
    fair = (apart <= math.log(SAME_SIZE)) | pairs["arm"].map(kind_of).eq("no compression")
    best = pairs[nearest & fair].sort_values("psnr_linear", ascending=False, kind="stable")
    best = best.drop_duplicates("line").set_index("line")
    return best[["arm_linear", "psnr_linear"]].set_axis(["rival", "rival_db"], axis="columns")


def key_subject(table: pd.DataFrame) -> str | None:
    """The real brain at 1 mm, or what stands in for it; None where nothing at 1 mm is recorded."""
    at_1_mm = table[(table["condition"] == NATIVE) & (table["spacing_in_mm"] == "1")]
    names = sorted(at_1_mm["subject"].unique(), key=lambda n: not n.startswith("cross_sectional"))
    return names[0] if names else None


def of_key_subject(table: pd.DataFrame) -> pd.DataFrame:
    """Its lines on its own grid."""
    return table[(table["subject"] == key_subject(table)) & (table["condition"] == NATIVE)]


def reconstruction_table(table: pd.DataFrame) -> pd.DataFrame:
    """Every arm on the key volume at 1 mm inside the brain, best PSNR first."""
    chosen = of_key_subject(table)
    chosen = chosen[chosen["arm"] != SCAN].sort_values("psnr", ascending=False, kind="stable")
    constant = ["Scan", "Condition", "Encoded at (mm)", "Rendered at (mm)", "Numbers kept", "NRMSE"]
    return _display(chosen).drop(columns=constant)


def structure_table(table: pd.DataFrame) -> pd.DataFrame:
    """Detail and anatomy of the key volume itself and of every arm on it, in the order of PSNR."""
    chosen = of_key_subject(table)
    order = chosen["psnr"].where(chosen["arm"] != SCAN, math.inf)  # an exact copy
    chosen = chosen.loc[order.sort_values(ascending=False, kind="stable").index]
    lines = {"Code": [title_of(arm) for arm in chosen["arm"]]}
    for name, (header, places) in STRUCTURE.items():
        values = chosen[name] if name in chosen else pd.Series(math.nan, chosen.index)
        lines[header] = [decimals(v, places) for v in values]
    return pd.DataFrame(lines | {"n": 1})


def grids_table(table: pd.DataFrame) -> pd.DataFrame:
    """Every arm, subject and pair of grids."""
    order = table[table["arm"] != SCAN].sort_values(
        ["subject", "condition", "psnr"], ascending=[True, True, False], kind="stable"
    )
    return _display(order)


def renderings_table(table: pd.DataFrame) -> pd.DataFrame:
    """One line a subject and pair of grids: the model, its splines, the best linear codec."""
    order = {name: place for place, name in enumerate(CONDITIONS)}  # its own grid first
    lines = []
    for arm in models(table["arm"])[:1]:
        title, base = title_of(arm), f"{MEDIL}_base"
        own = table[table["arm"] == arm].dropna(subset="rival_db")
        own = own.assign(order=own["condition"].map(order).fillna(len(order)))
        others = table.set_index(["subject", "condition", "arm"])
        for line in own.sort_values(["subject", "order"], kind="stable").to_dict("records"):
            beside = others.loc[line["subject"], line["condition"]]
            lines.append(
                {
                    "Scan": scan_name(line["subject"]),
                    "In (mm)": times(line["spacing_in_mm"]),
                    "Out (mm)": times(line["spacing_out_mm"]),
                    "Numbers per voxel": f"{line['numbers_per_voxel']:.3f}",
                    f"{title} (dB)": f"{line['psnr']:.2f}",
                    "Splines alone (dB)": decimals(beside["psnr"].get(f"{arm}{SPLINES}"), 2),
                    "Best linear codec (dB)": f"{line['rival_db']:.2f} ({SHORT[line['rival']]})",
                    f"{title} above it (dB)": with_sign(line["gain_db"]),
                    "Base above it (dB)": with_sign(beside["gain_db"].get(base, math.nan)),
                    "n": 1,
                }
            )
    return pd.DataFrame(lines)


def codecs_table(table: pd.DataFrame) -> pd.DataFrame:
    """The codecs over all volumes on their own grids: mean, spread and n."""
    native = table[(table["condition"] == NATIVE) & table["arm"].isin([*LINEAR, "dct_best"])]
    lines = []
    for arm, group in sorted(native.groupby("arm"), key=lambda pair: -pair[1]["psnr"].mean()):
        lines.append(
            {
                "Codec": TITLES[arm],
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
        lines += [(name, r.metric.replace("_", " "), plain(r.value), r.unit)
                  for r in own.itertuples()]  # fmt: skip
        measured = frame[frame["arm"] == own["arm"].iloc[0]]
        for title, column in (("weights, SHA-256", "weights_sha256"),
                              ("measured at commit", "commit")):  # fmt: skip
            lines += [(name, title, short_digest(v), "first 12 digits")
                      for v in measured[column].unique()]  # fmt: skip
    return pd.DataFrame(lines, columns=["Release", "Quantity", "Value", "Unit"])


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem."""
    every = wide(frame)
    averaged = curve.belongs(every)
    table = every[~averaged]
    return {
        NAME: reconstruction_table(table),
        f"{NAME}_structure": structure_table(table),
        f"{NAME}_grids": grids_table(table),
        "renderings": renderings_table(table),
        "codecs": codecs_table(table),
        f"{NAME}_sizes": curve.curve_table(every[averaged]),
        "release": release_table(frame),
        f"{NAME}_precision": precision.precision_table(frame),
    }


def verdict(frame: pd.DataFrame) -> str:
    """Does a model beat the best linear codec of its size, and at which voxel sizes?"""
    table = wide(frame)
    arms = models(table["arm"])
    if not arms:
        return "No trained model is recorded, only codecs that learn nothing."
    native = table[(table["arm"] == arms[0]) & (table["condition"] == NATIVE)]
    smaller = native["numbers_per_voxel"] < 1  # else a codec keeps every voxel: no comparison
    sentences = [_on_key_subject(table, arms[0]), *_over_sizes(table, native[smaller], arms[0])]
    if kept_whole := int((~smaller).sum()):
        sentences.append(
            f"Left out: {kept_whole} of n = {len(native)} volumes, whose latent holds at least as "
            "many numbers as the volume has voxels."
        )
    sentences += [_beside(table, arms[0], other) for other in arms[1:]]
    sentences.append(_primary_of(frame, native[smaller], arms[0]))
    sentences.append(precision.sentence(frame))
    return " ".join(filter(None, sentences))


def answer(frame: pd.DataFrame) -> list[str]:
    """The gain at the scans' own voxels, where a model wins and loses, and the primary test."""
    table = wide(frame)
    arms = models(table["arm"])
    if not arms:
        return []
    native = table[(table["arm"] == arms[0]) & (table["condition"] == NATIVE)]
    first = curve.in_short(table, arms[0]) or [_on_key_subject(table, arms[0])]
    return [*first, _primary_of(frame, native[native["numbers_per_voxel"] < 1], arms[0])]


def _on_key_subject(table: pd.DataFrame, arm: str) -> str:
    by_arm = of_key_subject(table).set_index("arm")
    if arm not in by_arm.index:
        return f"{title_of(arm)} is not recorded on a volume at 1 mm on its own grid."
    line = by_arm.loc[arm]
    reached = (
        f"On {scan_name(line['subject'])} at 1 mm, inside the brain, {title_of(arm)} reaches "
        f"{line['psnr']:.2f} dB with {line['numbers_kept']:,.0f} numbers "
        f"({line['numbers_per_voxel']:.3f} per voxel)"
    )
    if pd.isna(line["gain_db"]):
        return f"{reached}; n = 1 volume. No linear codec of that size is recorded beside it."
    return (
        f"{reached}: {signed_db(line['gain_db'])} the best linear codec of that size "
        f"({title_of(line['rival'])}, {line['rival_db']:.2f} dB); n = 1 volume."
    )


def _over_sizes(table: pd.DataFrame, native: pd.DataFrame, arm: str) -> list[str]:
    """Where it wins and where it loses; where that is not recorded, what is."""
    return curve.sentences(table, arm) or _over_all(native.dropna(subset="gain_db"))


def _over_all(native: pd.DataFrame) -> list[str]:
    """The mean gain on the volumes' own grids, and the voxels of the lowest and the highest."""
    mean = compared(native[["gain_db"]])
    if mean is None or len(native) < 2:
        return []
    ends = [native.loc[native["gain_db"].idxmin()], native.loc[native["gain_db"].idxmax()]]
    low, high = (f"{e['gain_db']:+.2f} dB on {times(e['spacing_in_mm'])} mm voxels" for e in ends)
    return [
        f"Over n = {len(native)} held-out volumes, each on its own grid, its gain over the best "
        f"codec is {interval(mean)} dB [95 % interval over volumes], from {low} to {high}.",
        curve.NOT_RECORDED,
    ]


def _primary_of(frame: pd.DataFrame, native: pd.DataFrame, arm: str) -> str:
    """The primary comparison; empty where rows are older than its name."""
    measured = frame[(frame["experiment"] == NAME) & (frame["arm"] == arm)]
    return _primary(native) if measured["recorded_at"].min() >= primary.named_on() else ""


def _primary(native: pd.DataFrame) -> str:
    """The gain over the best linear code, person by person; empty where too few could tell."""
    [named] = primary.comparisons(NAME)
    person = native["subject"].str.replace(r"_study\d+", "", regex=True)
    gain = compared(native.groupby(person)[["gain_db"]].mean())
    if gain is None or not primary.can_reject(gain.n_subjects):
        return ""
    p = primary.corrected({named: gain.p})[named]
    text = cited(
        interval(gain), metric="psnr", condition=NATIVE, subject=native["subject"].tolist(),
        arm=[native["arm"].iloc[0], *LINEAR],
    )  # fmt: skip
    said = "significant" if p < primary.ALPHA else "not significant"
    return (
        f"Primary comparison, named on {primary.named_on():%Y-%m-%d}: over n = {gain.n_subjects} "
        f"people and synthetic heads its gain is {text} dB (Holm p = {p:.2g}, {said})."
    )


def _beside(table: pd.DataFrame, arm: str, other: str) -> str:
    """Another model beside the first one; empty where they share no volume."""
    both = table[(table["condition"] == NATIVE) & table["arm"].isin([arm, other])]
    db = both.pivot(index="subject", columns="arm", values="psnr").reindex(columns=[arm, other])
    apart = (db[other] - db[arm]).dropna()
    if apart.empty:
        return ""
    return (
        f"{title_of(other)} is {signed_db(apart.mean())} {title_of(arm)} (mean over "
        f"n = {len(apart)} volumes, from {apart.min():+.2f} to {apart.max():+.2f} dB)."
    )


def _display(table: pd.DataFrame) -> pd.DataFrame:
    """Columns and headers for people; every column in one number of decimals."""
    result = pd.DataFrame(
        {
            "Code": [title_of(arm) for arm in table["arm"]],
            "Kind": [kind_of(arm) for arm in table["arm"]],
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
