"""Tables on sampled heads, from prepared rows; measures nothing.

Numbers of an arm are the mean over its seeds with the lowest and highest seed in brackets:
a set of samples is one measurement. Control is judged over single samples, with a bootstrap
over them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from eval import stats
from eval.generation import parts, scans
from eval.generation.arms import ALIKE, ANATOMY, ARMS, IMAGE, autoencoders
from eval.generation.opinion import OPINION
from eval.tables import decimals, three_digits, with_interval
from medil.anatomy.classes import CLASSES
from medil.synth.attributes import ATTRIBUTES

CODEC_NAMES = {
    "tiny": "MedIL tiny",
    "integrated": "MedIL, all learned,",
    "trilinear": "MedIL-Interp, all learned,",
    "conv-1mm": "Conv AE of fixed size",
}
NAMES = {**{name: arm.title for name, arm in ARMS.items()}, **parts.RULERS}
SHOWN = {  # metric -> header and decimals
    "frechet": ("Fréchet", 1),
    "mmd": ("MMD", 3),
    "precision": ("Precision", 2),
    "recall": ("Recall", 2),
    "density": ("Density", 2),
    "coverage": ("Coverage", 2),
    "ms_ssim": ("MS-SSIM", 3),
    "shape_spread": ("Shape spread", 2),
    "shape_coverage": ("Shape coverage", 2),
    "power_4_8_db": ("Power, 4–8 mm (dB)", 1),
    "tissue_distance": ("Tissue shares off (%)", 1),
    "handles_per_cm3": ("Handles (per cm³)", 2),
}
NEAREST = {  # the same, of the table of copies
    "nearest": ("Nearest training head (median RMS)", 4),
    "nearest_in_training": ("Among training heads (median RMS)", 4),
    "bar": ("Flagged below (RMS)", 4),
    "flagged_percent": ("Flagged (%)", 1),
    "copies_percent": ("Flagged, relative (%)", 1),
}
RESAMPLES = 2000
FACTORS = ["arm", "condition", "what", "how", "matched_to", "subject"]


def wide(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a set or sample: arm, condition with its factors, subject, then its metrics."""
    return rows.pivot(index=FACTORS, columns="metric", values="value").reset_index()


def _text(values: pd.Series, digits: int) -> str:
    """Mean, and lowest and highest where there are several."""
    values = values.dropna()
    if len(values) > 1:
        return with_interval(values.mean(), values.min(), values.max(), digits)
    return "-" if values.empty else decimals(values.iloc[0], digits)


def _n(subjects: pd.Series) -> str:
    sizes = {s.split(",")[0].removeprefix("set of ") for s in subjects}
    count = " / ".join(sorted(sizes))
    return count if len(subjects) == 1 else f"{count} × {len(subjects)} seeds"


def arms_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Each set against held-out heads: text, mean [lowest, highest seed].

    References first, then rebuilt heads, then samples.
    """
    table = wide(rows)
    order = [(parts.HELD_OUT, parts.ANOTHER), (parts.TRAINING, parts.ANOTHER)]
    order += [(arm, parts.REBUILT) for arm in autoencoders(list(ARMS))]
    order += [(arm, parts.SAMPLED) for arm in ARMS]
    lines = []
    for arm, condition in order:
        own = table[(table["arm"] == arm) & (table["condition"] == condition)]
        if own.empty:
            continue
        line = {
            "Heads": _heads(arm, condition),
            "Set": own["what"].iloc[0],
            "n": _n(own["subject"]),
        }
        line |= {header: _text(own[m], digits) for m, (header, digits) in SHOWN.items()}
        lines.append(line)
    return pd.DataFrame(lines)


READ = ("Heads", "Sampler", "Set", "Sharpness", "n", "Minutes", "Blur (mm)", "Fréchet", "Precision",
        "Recall", "MS-SSIM", "Shape spread", "Nearest training head (median RMS)",
        "Flagged, relative (%)")  # fmt: skip


def brief(make: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A table with those of its columns that are read first; a page has room for no more."""
    return lambda rows: make(rows).filter(READ)


BOUGHT = ("frechet", "mmd", "precision", "recall", "coverage", "ms_ssim")


def bought_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What a map buys: with and without one at equal compute, then the releases.

    Mean with the lowest and highest seed in brackets. Arms of equal compute have a training seed
    for each set; a release has one, and its brackets are those of sampling alone.
    """
    table, lines = wide(rows), []
    for arm in (*ALIKE, ANATOMY, IMAGE):
        own = table[(table["arm"] == arm) & (table["condition"] == parts.SAMPLED)]
        if own.empty or "training_min" not in own:
            continue
        lines.append({
            "Sampler": NAMES[arm],
            "Minutes": _text(own["training_min"], 1),
            "Steps": _text(own["training_steps"].drop_duplicates(), 0),
            **{SHOWN[m][0]: _text(own[m], SHOWN[m][1]) for m in BOUGHT},
            "n": _n(own["subject"]),
        })  # fmt: skip
    return pd.DataFrame(lines)


def memory_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How near to training heads each set comes, held-out heads and copies as references."""
    table = wide(rows)
    if "nearest" not in table:
        return pd.DataFrame()
    return pd.DataFrame(
        {"Heads": NAMES[str(arm)], "Set": _set(what, how), "n": _n(own["subject"])}
        | {header: _text(own[m], digits) for m, (header, digits) in NEAREST.items()}
        for (arm, what, how), own in table.groupby(["arm", "what", "how"], sort=False)
        if own["nearest"].notna().any()
    )


def _set(what: str, how: str) -> str:
    """What a set is, and how far its maps are bent."""
    return f"{what}, {how.replace(' x ', ' × ')}" if how.startswith("bends") else what


# Scans of maps

OF_SCAN = {  # what is found in a scan, what its map holds -> header, decimals
    ("handles_per_cm3", "handles_of_map_per_cm3"): ("Handles of white matter (per cm³)", 2),
    ("cortex_mm", "cortex_of_map_mm"): ("Thickness of the cortex (mm)", 2),
    ("ventricles", "ventricles_of_map"): ("Lateral ventricles (ml)", 1),
}


def scan_rows(rows: pd.DataFrame, condition: str) -> pd.DataFrame:
    """One line a scan of a map, its metrics as columns; of `scans.SHOWN` or `scans.FLOOR`."""
    own = rows[(rows["arm"] == ANATOMY) & (rows["condition"] == condition)]
    return own.pivot(index="subject", columns="metric", values="value")


def classes_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Each class of the given maps: its overlap with what the segmenter finds in the scan.

    Mean over scans with a 95 % bootstrap interval, beside heads of exact maps that went through
    the autoencoder alone.
    """
    shown, floor = (scan_rows(rows, c) for c in (scans.SHOWN, scans.FLOOR))
    names = {f"dice_{name.replace(' ', '_')}": name for name in CLASSES[1:]}
    lines = []
    for metric, name in names.items():
        if metric in shown and metric in floor:
            ours, theirs = _bootstrapped(shown[metric], 3), _bootstrapped(floor[metric], 3)
            n = f"{len(shown)} / {len(floor)}"
            name = name.replace("csf", "CSF")
            lines.append({"Class": name, "Samples (Dice)": ours, "Heads (Dice)": theirs, "n": n})
    return pd.DataFrame(lines)


def anatomy_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Topology, thickness and volume: found in scans, and in the maps that they were given."""
    lines = []
    for condition, heads in ((scans.SHOWN, "samples"), (scans.FLOOR, "heads")):
        table = scan_rows(rows, condition)
        for (found, given), (header, digits) in OF_SCAN.items():
            if found in table:
                lines.append({
                    "What": header, "Of": heads,
                    "In the scan": _bootstrapped(table[found], digits),
                    "In the map": _bootstrapped(table[given], digits),
                    "Scan − map": _bootstrapped(table[found] - table[given], digits, sign=True),
                    "n": len(table),
                })  # fmt: skip
    return pd.DataFrame(lines)


OF_PERSON = {  # of a map -> header, decimals
    "cortex_of_map_mm": ("Thickness of the cortex (mm)", 2),
    "ventricles_of_map": ("Lateral ventricles (ml)", 1),
    "brain_of_map": ("Brain (ml)", 0),
}


def people_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The anatomies of samples beside those of held-out heads: mean, lowest and highest."""
    drawn, held_out = (scan_rows(rows, c) for c in (scans.SHOWN, scans.FLOOR))
    if drawn.empty or held_out.empty:
        return pd.DataFrame()
    return pd.DataFrame(
        {"Of the map": header, "Samples": _text(drawn[metric], digits),
         "Held-out heads": _text(held_out[metric], digits), "n": f"{len(drawn)} / {len(held_out)}"}
        for metric, (header, digits) in OF_PERSON.items()
    )  # fmt: skip


def opinion_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Distances in features of LPIPS's trunk: mean [lowest, highest set]."""
    table, lines = wide(rows), []
    order = [(parts.HELD_OUT, parts.ANOTHER)]
    order += [(arm, parts.REBUILT) for arm in autoencoders(list(ARMS))]
    order += [(arm, parts.SAMPLED) for arm in ARMS]
    for arm, condition in order:
        own = table[(table["arm"] == arm) & (table["condition"] == condition + OPINION)]
        if len(own):
            line = {"Heads": _heads(arm, condition), "n": _n(own["subject"])}
            lines.append(line | {h: _text(own[m], d) for m, (h, d) in OPINIONS.items()})
    return pd.DataFrame(lines)


OPINIONS = {"frechet": ("Fréchet", 4)} | {name: SHOWN[name] for name in BOUGHT[1:5]}


def _heads(arm: str, condition: str) -> str:
    """What a set is called: rebuilt heads by their autoencoder, others by their arm."""
    if condition != parts.REBUILT:
        return NAMES[arm]
    own = ARMS[arm].autoencoder
    return f"{CODEC_NAMES.get(own, own)} alone"


def _bootstrapped(values: pd.Series, digits: int, sign: bool = False) -> str:
    low, high = stats.bootstrap_interval(values.to_numpy()[:, None])
    return with_interval(values.mean(), low, high, digits, sign)


# Control

PAIRS = ["arm", "what", "how", "subject", "asked", "measured"]


def control_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Requested (or known) and measured values: arm, what, how, subject, asked, measured.

    `what` is the attribute; `how` the guidance, or the heads on which the ruler was tested.
    """
    table = wide(rows).reindex(columns=PAIRS)
    return table.dropna(subset=["asked", "measured"]).reset_index(drop=True)


def agreement(asked: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """How well measured values follow requested ones: `r2`, slope, rms and bias.

    The bias is measured minus asked. `r2`, the squared correlation, and the slope are NaN where
    all requests are the same.
    """
    asked, measured = np.asarray(asked, dtype=float), np.asarray(measured, dtype=float)
    off, spread = measured - asked, asked - asked.mean()
    slope = r2 = float("nan")
    if spread @ spread > 0:
        both = spread @ (measured - measured.mean())
        slope, own = both / (spread @ spread), np.var(measured) * len(measured)
        r2 = both**2 / (spread @ spread) / own if own > 0 else 0.0
    return {
        "r2": float(r2),
        "slope": float(slope),
        "rms": float(np.sqrt(np.mean(off**2))),
        "bias": float(off.mean()),
    }


def interval(asked: np.ndarray, measured: np.ndarray, name: str) -> tuple[float, float]:
    """95 % bootstrap interval over samples of one number of `agreement`."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(asked), size=(RESAMPLES, len(asked)))
    values = [agreement(asked[d], measured[d])[name] for d in draws]
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def control_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Requested against measured for each attribute and weight; the ruler's own lines first."""
    pairs = control_pairs(rows)
    pairs["later"], names = pairs["arm"] != parts.RULER, list(ATTRIBUTES)
    lines = []
    for (_, rank, how, arm), own in pairs.groupby(
        ["later", pairs["what"].map(names.index), "how", "arm"]
    ):
        asked, measured, name = own["asked"].to_numpy(), own["measured"].to_numpy(), names[rank]
        found, (low, high) = agreement(asked, measured), interval(asked, measured, "r2")
        lines.append(
            {
                "Attribute": f"{name} ({ATTRIBUTES[name].unit})".removesuffix(" (1)"),
                "Heads": NAMES[str(arm)],
                "Under": how,
                "n": len(own),
                "Asked": f"{three_digits(asked.min())} to {three_digits(asked.max())}",
                "r²": with_interval(found["r2"], low, high),
                "Slope": f"{found['slope']:.2f}",
                "RMS error": f"{found['rms']:.3g}",
                "Bias": f"{found['bias']:+.3g}",
            }
        )
    return pd.DataFrame(lines)


# Diversity and sharpness


def blur_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Held-out heads after known blurs, and sets brought to one sharpness."""
    table = wide(rows)
    if "blur_mm" not in table:
        return pd.DataFrame()
    table = table[table["blur_mm"].notna()]
    table = table.assign(later=table["matched_to"] != "").sort_values(["later", "arm", "blur_mm"])
    wanted = ("ms_ssim", "power_4_8_db", "recall", "coverage", "shape_spread", "shape_coverage")
    lines = []
    for row in table.to_dict("records"):
        matched = parts.MATCHED + NAMES[row["matched_to"]] if row["later"] else row["condition"]
        n, blur_mm = _n(pd.Series(row["subject"])), f"{row['blur_mm']:.2f}"
        line = {"Heads": NAMES[row["arm"]], "Sharpness": matched, "n": n, "Blur (mm)": blur_mm}
        lines.append(line | {SHOWN[m][0]: f"{row[m]:.{SHOWN[m][1]}f}" for m in wanted})
    return pd.DataFrame(lines)


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables by file stem; parts without rows leave theirs empty."""
    made = {"arms": arms_table, "bought": bought_table, "memory": memory_table,
            "classes": classes_table, "anatomy": anatomy_table, "control": control_table,
            "people": people_table, "opinion": opinion_table, "blur": blur_table}  # fmt: skip
    return {f"generation_{name}": table(rows) for name, table in made.items()}
