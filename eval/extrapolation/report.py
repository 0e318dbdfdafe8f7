"""From prepared rows to the tables of this experiment.

Statistics are over synthetic heads. Phantoms, of which there are few, and real brains, whose truth
is a scan with its noise, have tables of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from eval.coders import neighbours
from eval.extrapolation.blocks import AT_1_MM, BRAIN, CONDITIONS, FOLDED, NATIVE
from eval.extrapolation.coders import CODECS, RELEASE, SPLINES, TRUTH
from eval.extrapolation.score import BANDS, ERRORS, MISMATCH, PARTS, SURFACE, UNITS
from eval.extrapolation.train import BRAIN_TITLES, TITLES
from eval.pairs import NO_SEED, Scores, interval
from eval.stats import Paired

TRAINED = TITLES | BRAIN_TITLES
NAMES = TRAINED | {
    RELEASE: "release, many voxel sizes",
    SPLINES: "release, splines alone",
    "dct_ball": "DCT, lowest ball",
    "bspline": "B-spline, least squares",
    neighbours.NAME: "B-spline, decoder sees neighbours",
    "interpolation": "cubic interpolation",
    TRUTH: "the truth",
}
FIRST, FIRST_OF_BRAINS = "integrated", "integrated @brains"
RIVALS = ("trilinear", "subpixel", "conv-1mm", *CODECS)
CONTROL, FINER, REAL = "1 -> 1", "0.8 -> 0.8", "1 -> native"
HEADINGS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "hfen": "HFEN",
    "fsc_05_mm": "resolution at FSC 0.5",
    **{f"detail_{part}_{band}": f"{part}, {band}" for part in PARTS for band in BANDS},
}
DETAILS = [f"detail_{part}_{band}" for band in BANDS for part in PARTS if part != "error"]
COMPARED = ("psnr", "detail_kept_fine", "detail_invented_fine", "fsc_05_mm", "handles_per_cm3")
Answer = tuple[str, str]  # arm, condition


def of_heads(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of synthetic heads."""
    return frame[~frame["subject"].str.startswith((FOLDED, BRAIN))]


def of_brains(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of real brains."""
    return frame[frame["subject"].str.startswith(BRAIN)]


def arms_of(frame: pd.DataFrame) -> list[str]:
    """The arms that have rows, in the order of the tables; those without a name come last."""
    present = set(frame["arm"])
    return [*(arm for arm in NAMES if arm in present), *sorted(present - set(NAMES))]


def name_of(arm: str) -> str:
    """An arm's name for people: its own where `NAMES` has no other."""
    base, bracket, size = arm.partition(" (")
    return NAMES.get(base, base) + bracket + size


def heading(metric: str) -> str:
    """A column's title with its unit."""
    words = HEADINGS.get(metric) or metric.replace("_per_cm3", "").replace("_", " ")
    unit = UNITS[metric].replace("1/cm3", "per cm³")
    return words if unit == "1" else f"{words} ({unit})"


def scores_of(frame: pd.DataFrame) -> Scores:
    """Values by (arm, condition, metric); only trained arms have seeds of their own."""
    seeds = frame["seed"].where(frame["arm"].isin(TRAINED), NO_SEED)
    return Scores(frame.assign(seed=seeds), ["arm", "condition", "metric"])


def codec_beside(frame: pd.DataFrame, answer: Answer, codec: str) -> str:
    """The codec whose count of numbers is nearest to an arm's: that of its latent's size."""
    here = frame[frame["condition"] == answer[1]]
    numbers = np.log(here.groupby("arm")["numbers_kept"].mean())
    if answer[0] not in numbers:
        return codec
    sizes = numbers[numbers.index.str.partition(" (").get_level_values(0) == codec]
    return codec if sizes.empty else (sizes - numbers[answer[0]]).abs().idxmin()


# Tables


def pairs_table(heads: pd.DataFrame) -> pd.DataFrame:
    """Differences, each with interval, p value and n: exploratory.

    The first arm against every rival under each condition; and for every arm, the finer scan
    against the control (what extrapolating costs) and against the rendering of the 1 mm scan
    on the same fine voxels (what the finer scan adds).
    """
    scores, lines = scores_of(heads), []
    contests = [((FIRST, c), (rival, c)) for rival in RIVALS for c in CONDITIONS]
    finer = {c: f"1 -> {b}" for c, (a, b) in CONDITIONS.items() if a == b != AT_1_MM}
    contests += [
        ((arm, condition), (arm, other))
        for arm in arms_of(heads)
        for condition, of_coarse in finer.items()
        for other in (CONTROL, of_coarse)
    ]
    for metric in COMPARED:
        for first, second in contests:
            pair = scores.gap((*first, metric), (*second, metric))
            if pair:
                names = {"first": text(first), "second": text(second), "metric": metric}
                lines.append(names | {"unit": UNITS[metric]} | vars(pair))
    return pd.DataFrame(lines)


def text(answer: Answer) -> str:
    """An arm under a condition, for people."""
    return f"{name_of(answer[0])}, {answer[1]}"


def wide(frame: pd.DataFrame, metrics: Sequence[str], digits: int = 2) -> pd.DataFrame:
    """One line an arm and condition, one column a metric: mean [interval], and n."""
    scores, lines = scores_of(frame), []
    for condition in CONDITIONS:
        for arm in arms_of(frame):
            levels = {heading(m): scores.level(arm, condition, m) for m in metrics}
            line = {"Condition (mm)": condition, "Arm": name_of(arm)}
            lines += _line(line, levels, digits, False)
    return pd.DataFrame(lines)


def _line(line: dict, pairs: dict[str, Paired | None], digits: int, sign: bool) -> list[dict]:
    """One line of a table with intervals and n; none where nothing is recorded."""
    known = [pair for pair in pairs.values() if pair]
    texts = {name: interval(p, digits, sign) if p else "" for name, p in pairs.items()}
    return [line | texts | {"n": f"{p.n_subjects} × {p.n_seeds}"} for p in known[:1]]


def false_table(frame: pd.DataFrame) -> pd.DataFrame:
    """White matter's handles and pieces per cm3: the truth's, and each arm's less the truth's."""
    heads, lines = of_heads(frame), []
    scores = scores_of(heads)
    for condition in CONDITIONS:
        for arm in arms_of(heads):
            line = {"Condition (mm)": condition, "Arm": name_of(arm)}
            for metric in SURFACE:
                own = scores.level(arm, condition, metric)
                more = scores.gap((arm, condition, metric), (TRUTH, condition, metric))
                if own and more:
                    over = "" if arm == TRUTH else interval(more, 3)
                    line[heading(metric)] = interval(own, 3, False)
                    line[f"{heading(metric)}, over the truth"] = over
                    line["n"] = f"{own.n_subjects} × {own.n_seeds}"
            if len(line) > 2:
                lines.append(line)
    return pd.DataFrame(lines)


def excess_table(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """False handles of white matter alone: each arm's less the truth's, a column a condition."""
    heads, lines = of_heads(frame), []
    scores = scores_of(heads)
    for arm in arms_of(heads):
        if arm != TRUTH:
            more = {
                f"{c} mm": scores.gap((arm, c, SURFACE[0]), (TRUTH, c, SURFACE[0]))
                for c in conditions
            }
            lines += _line({"Handles per cm³ over the truth": name_of(arm)}, more, 3, True)
    return pd.DataFrame(lines)


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem, from prepared rows."""
    heads, phantoms = of_heads(frame), frame[frame["subject"].str.startswith(FOLDED)]
    made = {
        "errors": wide(heads, (*ERRORS, MISMATCH)),
        "detail": wide(heads, DETAILS),
        "surface": false_table(frame),
        "pairs": pairs_table(heads),
        "phantoms": wide(phantoms, ("psnr", *DETAILS[3:6], *SURFACE), 3),
        "brains": wide(of_brains(frame), (*ERRORS, *DETAILS[3:], *SURFACE), 3),
    }
    return {f"extrapolation_{name}": table for name, table in made.items()}


def real_detail(frame: pd.DataFrame) -> pd.DataFrame:
    """What became of the detail of real brains whose own voxels are the truth."""
    brains = of_brains(frame)
    own = brains["condition"].isin([c for c, voxels in CONDITIONS.items() if NATIVE in voxels])
    return wide(brains[own], ("psnr", *DETAILS[3:]))
