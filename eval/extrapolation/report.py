"""From prepared rows to the tables of this experiment."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from eval.extrapolation.blocks import CONDITIONS
from eval.extrapolation.coders import TRUTH
from eval.extrapolation.paired import (
    CONTROL,
    FIRST,
    RIVALS,
    Answer,
    arms_of,
    gap,
    interval,
    level,
    name_of,
    of_heads,
    scores_of,
)
from eval.extrapolation.score import BANDS, MISMATCH, PARTS, SURFACE, UNITS
from eval.stats import holm

HEADINGS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "hfen": "HFEN",
    "fsc_05_mm": "resolution at FSC 0.5",
    "fsc_0143_mm": "resolution at FSC 0.143",
    **{f"detail_{part}_{band}": f"{part}, {band}" for part in PARTS for band in BANDS},
}
COMPARED = ("psnr", "detail_kept_fine", "detail_invented_fine", "fsc_05_mm", "handles_per_cm3")


def pairs_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Differences, each with interval, p value (Holm's within one metric) and n.

    The first arm against every rival under each condition; and for every arm, the finer scan
    against the control (what extrapolating costs) and against the rendering of the 1 mm scan
    on the same fine voxels (what the finer scan adds).
    """
    heads, lines = of_heads(frame), []
    scores = scores_of(heads)
    contests = [
        ((FIRST, condition), (rival, condition)) for rival in RIVALS for condition in CONDITIONS
    ]
    for arm in arms_of(heads):
        for condition, (in_mm, out_mm) in CONDITIONS.items():
            if in_mm == out_mm and condition != CONTROL:
                contests += [
                    ((arm, condition), (arm, CONTROL)),
                    ((arm, condition), (arm, f"1 -> {out_mm:g}")),
                ]
    for metric in COMPARED:
        for first, second in contests:
            found = gap(scores, first, second, metric)
            if found:
                line = {"first": text(first), "second": text(second), "metric": metric}
                lines.append(line | {"unit": UNITS[metric]} | vars(found))
    table = pd.DataFrame(lines)
    if len(table):
        adjusted = table.groupby("metric")["p"].transform(lambda p: holm(p.tolist()))
        table.insert(table.columns.get_loc("p") + 1, "p_holm", adjusted)
    return table


def text(answer: Answer) -> str:
    """An arm under a condition, for people."""
    return f"{name_of(answer[0])}, {answer[1]}"


def wide(frame: pd.DataFrame, metrics: Sequence[str], digits: int = 2) -> pd.DataFrame:
    """One line an arm and condition, one column a metric: mean [interval], and n."""
    lines, scores = [], scores_of(frame)
    for condition in CONDITIONS:
        for arm in arms_of(frame):
            found = {m: level(scores, (arm, condition), m) for m in metrics}
            known = [p for p in found.values() if p]
            if not known:
                continue
            line = {"Condition (mm)": condition, "Arm": name_of(arm)}
            line |= {heading(m): "" if p is None else interval(p, digits) for m, p in found.items()}
            lines.append(line | {"n": f"{known[0].n_subjects} × {known[0].n_seeds}"})
    return pd.DataFrame(lines)


def heading(metric: str) -> str:
    """A column's title with its unit."""
    words = HEADINGS.get(metric) or metric.replace("_per_cm3", "").replace("_", " ")
    unit = UNITS[metric].replace("1/cm3", "per cm³")
    return words if unit == "1" else f"{words} ({unit})"


def false_table(frame: pd.DataFrame) -> pd.DataFrame:
    """White matter's handles and pieces per cm3: the truth's, and each arm's less the truth's."""
    heads, lines = of_heads(frame), []
    scores = scores_of(heads)
    for condition in CONDITIONS:
        for arm in arms_of(heads):
            line = {"Condition (mm)": condition, "Arm": name_of(arm)}
            for metric in SURFACE:
                own = level(scores, (arm, condition), metric)
                more = gap(scores, (arm, condition), (TRUTH, condition), metric)
                if own and more:
                    line[heading(metric)] = interval(own, 3)
                    same = arm == TRUTH
                    line[f"{heading(metric)}, over the truth"] = (
                        "" if same else interval(more, 3, True)
                    )
                    line["n"] = f"{own.n_subjects} × {own.n_seeds}"
            if len(line) > 2:
                lines.append(line)
    return pd.DataFrame(lines)


def excess_table(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """False handles of white matter alone: each arm's less the truth's, a column a condition."""
    heads, lines = of_heads(frame), []
    scores = scores_of(heads)
    for arm in arms_of(heads):
        found = {c: gap(scores, (arm, c), (TRUTH, c), SURFACE[0]) for c in conditions}
        known = [p for p in found.values() if p]
        if known and arm != TRUTH:
            line = {"Handles per cm³ over the truth": name_of(arm)}
            line |= {f"{c} mm": interval(p, 3, True) if p else "" for c, p in found.items()}
            lines.append(line | {"n": f"{known[0].n_subjects} × {known[0].n_seeds}"})
    return pd.DataFrame(lines)


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem, from prepared rows."""
    heads = of_heads(frame)
    phantoms = frame[~frame.index.isin(heads.index)]
    details = [f"detail_{part}_{band}" for band in BANDS for part in PARTS if part != "error"]
    made = {
        "errors": wide(heads, ("psnr", "ssim", "hfen", "fsc_05_mm", "fsc_0143_mm", MISMATCH)),
        "detail": wide(heads, details),
        "surface": false_table(frame),
        "pairs": pairs_table(frame),
        "phantoms": wide(phantoms, ("psnr", *details[3:6], *SURFACE), 3),
    }
    return {f"extrapolation_{name}": table for name, table in made.items()}
