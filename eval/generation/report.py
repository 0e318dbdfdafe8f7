"""Tables and sentences on sampled heads, from recorded rows; measures nothing.

Numbers of an arm are the mean over its seeds with the lowest and highest seed in brackets:
a set of samples is one measurement. Control is judged over single samples, with a bootstrap
over them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from eval.generation import parts
from eval.generation.autoencoders import TITLES
from eval.generation.sizes import EXPERIMENT
from eval.rows import latest, read_rows
from eval.tables import write
from medil.errors import InputError
from medil.synth.attributes import ATTRIBUTES

NAMES = {**TITLES, **parts.RULERS}
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
    "power_4_8_db": ("Power 4-8 mm (dB)", 1),
    "tissue_distance": ("Tissue shares off (%)", 1),
    "handles_per_cm3": ("Handles (1/cm3)", 2),
}
BAR_R2 = 0.8
BAR_RATIO = 10.0
SIMULATIONS = 2000


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """The experiment's newest rows, of the largest sets where profiles were mixed.

    Raises:
        InputError: There are none.
    """
    mine = frame[frame["experiment"] == EXPERIMENT]
    if mine.empty:
        raise InputError("sampling has no rows; record some: python -m eval.generation.")
    profile = "gpu" if (mine["profile"] == "gpu").any() else mine["profile"].iloc[-1]
    return latest(mine[mine["profile"] == profile])


def _wide(frame: pd.DataFrame) -> pd.DataFrame:
    """One line a set: arm, condition, subject, then its metrics."""
    keys = ["arm", "condition", "subject"]
    return frame.pivot(index=keys, columns="metric", values="value").reset_index()


def _text(values: pd.Series, digits: int) -> str:
    """Mean, and lowest and highest where there are several."""
    values = values.dropna()
    if values.empty:
        return "-"
    text = f"{values.mean():.{digits}f}"
    if len(values) > 1:
        text += f" [{values.min():.{digits}f}, {values.max():.{digits}f}]"
    return text


def _n(subjects: pd.Series) -> str:
    sizes = {s.split(",")[0].removeprefix("set of ") for s in subjects}
    count = " / ".join(sorted(sizes))
    return count if len(subjects) == 1 else f"{count} x {len(subjects)} seeds"


def arms_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Each set against held-out heads: rulers first, then rebuilt heads, then samples.

    Args:
        frame: Recorded rows.

    Returns:
        Heads, Set, n and the metrics of `SHOWN` as text, mean [lowest, highest seed].

    Raises:
        InputError: No rows.
    """
    wide = _wide(newest(frame))
    order = [(parts.HELD_OUT, parts.ANOTHER), (parts.TRAINING, parts.ANOTHER)]
    order += [(arm, c) for c in (parts.REBUILT, parts.SAMPLED) for arm in TITLES]
    lines = []
    for arm, condition in order:
        own = wide[(wide["arm"] == arm) & (wide["condition"] == condition)]
        if own.empty:
            continue
        line = {"Heads": NAMES[arm], "Set": condition.split(",")[0], "n": _n(own["subject"])}
        line |= {header: _text(own[m], digits) for m, (header, digits) in SHOWN.items()}
        lines.append(line)
    return pd.DataFrame(lines)


def memory_table(frame: pd.DataFrame) -> pd.DataFrame:
    """How near to training heads each set comes, held-out heads and copies as rulers.

    Raises:
        InputError: No rows.
    """
    wide = _wide(newest(frame))
    lines = []
    for (arm, condition), own in wide.groupby(["arm", "condition"], sort=False):
        if "nearest" not in own or own["nearest"].isna().all():
            continue
        lines.append(
            {
                "Heads": NAMES[str(arm)],
                "Set": str(condition).split(",")[0],
                "n": _n(own["subject"]),
                "Nearest training head (median RMS)": _text(own["nearest"], 4),
                "Among training heads (median RMS)": _text(own["nearest_in_training"], 4),
                "Flagged below (RMS)": _text(own["bar"], 4),
                "Flagged (%)": _text(own["flagged_percent"], 1),
                "Flagged, relative (%)": _text(own["copies_percent"], 1),
            }
        )
    return pd.DataFrame(lines)


# Control


def control_pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """What was asked (or known) and what was measured.

    Returns:
        arm, attribute, how (``guidance 2``, or which heads the ruler was tried on),
        subject, asked, measured.

    Raises:
        InputError: No rows.
    """
    wide = _wide(newest(frame))
    if "asked" not in wide:
        raise InputError("control has no rows; record some: python -m eval.generation.")
    wide = wide[wide["asked"].notna() & wide["measured"].notna()]
    split = wide["condition"].str.split(", ", n=1, expand=True)
    kept = wide[["arm", "subject", "asked", "measured"]]
    return kept.assign(attribute=split[0], how=split[1]).reset_index(drop=True)


def agreement(asked: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """How well a measured value follows what was asked.

    Args:
        asked: [n].
        measured: [n].

    Returns:
        r2 (squared correlation), slope (of measured on asked), rms and bias (measured less
        asked); r2 and slope are NaN where nothing varies.
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
    draws = rng.integers(len(asked), size=(SIMULATIONS, len(asked)))
    found = [agreement(asked[d], measured[d])[name] for d in draws]
    low, high = np.nanpercentile(found, (2.5, 97.5))
    return float(low), float(high)


def control_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Asked against measured for each attribute and weight; the ruler's own lines first.

    Raises:
        InputError: No rows.
    """
    pairs = control_pairs(frame)
    pairs["first"] = pairs["arm"] != parts.RULER
    order = {name: k for k, name in enumerate(ATTRIBUTES)}
    pairs["rank"] = pairs["attribute"].map(order)
    lines = []
    for (_, _, how, arm), own in pairs.groupby(["first", "rank", "how", "arm"]):
        asked, seen = own["asked"].to_numpy(), own["measured"].to_numpy()
        found, name = agreement(asked, seen), str(own["attribute"].iloc[0])
        low, high = interval(asked, seen, "r2")
        lines.append(
            {
                "Attribute": name,
                "Heads": NAMES[str(arm)],
                "Under": how,
                "n": len(own),
                "Asked": f"{asked.min():.3g} to {asked.max():.3g}",
                "r2": f"{found['r2']:.2f} [{low:.2f}, {high:.2f}]",
                "Slope": f"{found['slope']:.2f}",
                "RMS error": f"{found['rms']:.3g}",
                "Bias": f"{found['bias']:+.3g}",
                "Unit": ATTRIBUTES[name].unit,
            }
        )
    return pd.DataFrame(lines)


# Diversity and sharpness


def blur_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Held-out heads after known blurs, and sets brought to one sharpness.

    Raises:
        InputError: No rows.
    """
    wide = _wide(newest(frame))
    if "blur_mm" not in wide:
        raise InputError("blur has no rows; record some: python -m eval.generation.")
    wide = wide[wide["blur_mm"].notna()]
    matched = wide["condition"].str.startswith(parts.MATCHED)
    wide = wide.assign(later=matched).sort_values(["later", "arm", "blur_mm"])
    wanted = ("ms_ssim", "power_4_8_db", "recall", "coverage", "shape_spread", "shape_coverage")
    lines = []
    for row in wide.to_dict("records"):
        condition = str(row["condition"])
        if row["later"]:
            condition = parts.MATCHED + NAMES[condition.removeprefix(parts.MATCHED)]
        line = {"Heads": NAMES[row["arm"]], "Sharpness": condition,
                "n": str(row["subject"]).split(",")[0].removeprefix("set of "),
                "Blur (mm)": f"{row['blur_mm']:.2f}"}  # fmt: skip
        lines.append(line | {SHOWN[m][0]: f"{row[m]:.{SHOWN[m][1]}f}" for m in wanted})
    return pd.DataFrame(lines)


TABLES = {
    f"{EXPERIMENT}_arms.csv": arms_table,
    f"{EXPERIMENT}_memory.csv": memory_table,
    f"{EXPERIMENT}_control.csv": control_table,
    f"{EXPERIMENT}_blur.csv": blur_table,
}


def tables(folder: Path, out: Path) -> list[Path]:
    """Write the four tables; those without rows are left out.

    Args:
        folder: Of the recorded rows.
        out: Of the CSV files; made with its parents.

    Raises:
        InputError: The experiment has no rows at all.
    """
    frame, made = read_rows(folder / f"{EXPERIMENT}.jsonl"), {}
    for name, table in TABLES.items():
        try:
            made[name] = table(frame)
        except InputError:
            newest(frame)  # nothing at all is an error, one part less is not
    return write({name: table for name, table in made.items() if not table.empty}, out)
