"""From the rows of this experiment to tables and the verdict: nothing here measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eval.extrapolation.blocks import CONDITIONS
from eval.extrapolation.coders import TRUTH
from eval.extrapolation.paired import (
    CONTROL,
    FIRST,
    NAMES,
    RIVALS,
    Answer,
    arms_of,
    gap,
    interval,
    level,
    of_heads,
    recorded,
    scores_of,
)
from eval.extrapolation.score import BANDS, EXPERIMENT, MISMATCH, PARTS, SURFACE, UNITS
from eval.extrapolation.verdict import headline, verdict
from eval.rows import RESULTS
from eval.stats import holm
from medil.system.files import atomic_output

__all__ = [
    "NAMES",
    "excess_table",
    "false_table",
    "gap",
    "headline",
    "of_heads",
    "pairs_table",
    "recorded",
    "scores_of",
    "tables",
    "verdict",
    "wide",
]
TABLES = Path("_build/tables")
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
    return f"{NAMES[answer[0]]}, {answer[1]}"


def wide(frame: pd.DataFrame, metrics: Sequence[str], digits: int = 2) -> pd.DataFrame:
    """One line an arm and condition, one column a metric: mean [interval], and n."""
    lines, scores = [], scores_of(frame)
    for condition in CONDITIONS:
        for arm in arms_of(frame):
            found = {m: level(scores, (arm, condition), m) for m in metrics}
            known = [p for p in found.values() if p]
            if not known:
                continue
            line = {"Condition (mm)": condition, "Arm": NAMES[arm]}
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
            line = {"Condition (mm)": condition, "Arm": NAMES[arm]}
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
            line = {"Handles per cm³ over the truth": NAMES[arm]}
            line |= {f"{c} mm": interval(p, 3, True) if p else "" for c, p in found.items()}
            lines.append(line | {"n": f"{known[0].n_subjects} × {known[0].n_seeds}"})
    return pd.DataFrame(lines)


# Files


def tables(folder: Path = RESULTS, out: Path = TABLES) -> list[Path]:
    """Write the tables and the verdict, from rows only.

    Args:
        folder: Of the rows.
        out: Of the tables; made with its parents.

    Returns:
        The files; none where nothing is recorded.
    """
    frame = recorded(folder)
    if frame is None or frame.empty:
        return []
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
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name, table in made.items():
        path = out / f"{EXPERIMENT}_{name}.csv"
        with atomic_output(path, force=True) as temporary:
            table.to_csv(temporary, index=False)
        files.append(path)
    path = out / f"{EXPERIMENT}_verdict.txt"
    with atomic_output(path, force=True) as temporary:
        temporary.write_text(verdict(frame) + "\n")
    return [*files, path]
