"""The page of all results: its picture, and one recorded number that it measures again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval.coders.base import models
from eval.evaluate import report as evaluate_report
from eval.evaluate.inputs import PLAN, read_plan, subject
from eval.evaluate.report import NATIVE
from eval.metrics import METRICS, peak_intensity, psnr
from eval.pages.results import Recorded
from eval.reconstruction import measure as reconstruction
from eval.reconstruction.sizes import QUESTIONS
from eval.rows import latest
from eval.subjects import Subject, subjects
from eval.tables import scan_name, times
from medil.errors import InputError
from medil.model.codecs import dct_ball
from medil.plots import COLOURS, panels

MARKS = "osD^vP*X<>dph"  # more than colours, so that no pair repeats soon
LIVE_ARM = "dct_ball"  # quick, and learned from nothing: the same numbers everywhere


def rows_of_gains(found: list[Recorded]) -> pd.DataFrame:
    """The newest rows of scans and arms: a user's own, else the reconstruction's.

    Raises:
        InputError: Neither is recorded.
    """
    frames = {r.experiment.name: r.frame for r in found if r.frame is not None}
    for name in (evaluate_report.NAME, reconstruction.NAME):
        if name in frames:
            return frames[name]
    raise InputError("no scan is recorded; run: python -m eval.reconstruction --profile quick")


def gains_by_scan(found: list[Recorded]) -> pd.DataFrame:
    """MedIL minus the best linear rival in dB: one line a scan, one column a question."""
    frame = rows_of_gains(found)
    conditions = frame.loc[frame["metric"] == "psnr", "condition"].unique()
    conditions = [c for c in conditions if c not in QUESTIONS]  # a curve of their own
    table = pd.DataFrame({c: gains_of(frame, "psnr", c) for c in conditions})
    return table.dropna(how="all").dropna(how="all", axis="columns")


def gains_of(frame: pd.DataFrame, metric: str, condition: str) -> pd.Series:
    """Scan by scan, how much better the first model is; empty where none is recorded."""
    arms = models(frame["arm"])
    return evaluate_report.gains(frame, metric, arms[0] if arms else "", condition)


def gains_told(table: pd.DataFrame) -> str:
    """One line a question: the mean over scans, its 95 % interval if they suffice, the range."""
    lines = []
    for question in table:
        values = table[question].dropna()
        if len(values):
            lines.append(f"- *{_arrow(question)}*: {_mean_told(values)}.")
    return "\n".join(lines)


def _mean_told(values: pd.Series) -> str:
    if len(values) == 1:
        return f"{values.iloc[0]:+.2f} dB (n = 1)"
    low, high = evaluate_report.interval(values)
    ends = "" if pd.isna(low) else f" [95 % interval {low:+.2f} to {high:+.2f}]"
    return (
        f"mean {values.mean():+.2f} dB{ends} over n = {len(values)}, "
        f"from {values.min():+.2f} to {values.max():+.2f} dB"
    )


def _arrow(question: str) -> str:
    """A question for people: ``2 mm → 1 mm``."""
    return times(question.replace("->", "→"))


def gains_figure(table: pd.DataFrame):
    """One line per scan, one mark per question: dB above or below the best linear code."""
    figure, axes = panels(1, 1, panel_in=(7.6, 1.5 + 0.34 * max(1, len(table))))
    ax = axes[0, 0]
    for number, condition in enumerate(table):
        place = np.arange(len(table)) + 0.08 * (number - (len(table.columns) - 1) / 2)
        mark, colour = MARKS[number % len(MARKS)], COLOURS[number % len(COLOURS)]
        ax.plot(table[condition], place, mark, color=colour, ms=6, label=_arrow(condition))
    ax.axvline(0, color="0.4", lw=1, ls="--")
    ax.set_yticks(range(len(table)), [scan_name(str(name))[:40] for name in table.index])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.grid(axis="y", color="0.92")
    ax.set_xlabel("MedIL − best linear code of its size: PSNR inside the mask (dB)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def measure_again(found: list[Recorded], folder: Path) -> tuple[pd.DataFrame, str]:
    """Measure one recorded number again: PSNR of the lowest cosines on a whole scan.

    A table of one line, empty where no recorded scan is available, and a sentence.
    """
    for r in reversed(found):
        rows = latest(r.rows)
        chosen = rows[
            (rows["arm"] == LIVE_ARM) & (rows["metric"] == "psnr") & (rows["condition"] == NATIVE)
        ]
        for row in chosen[chosen["experiment"] == r.experiment.name].itertuples():
            person = _at_hand(folder, row.subject, row.data_sha256)
            if person is not None:
                return _again(row, person)
    return pd.DataFrame(), (
        "None of the recorded scans is available on this computer, so nothing was measured again."
    )


def _again(row: Any, person: Subject) -> tuple[pd.DataFrame, str]:
    scan = person.load()
    volume, mask = scan.volume, scan.mask
    truth = volume.data.double().numpy()
    rebuilt = dct_ball(truth, volume.grid, row.numbers_kept).reconstruction
    now = psnr(truth, rebuilt, mask, peak_intensity(truth, mask))
    line = {
        "Scan": scan_name(row.subject),
        "Numbers kept": row.numbers_kept,
        "Recorded (dB)": row.value,
        "Now (dB)": now,
        "Difference (dB)": now - row.value,
        "n": 1,
    }
    same = abs(now - row.value) < 1e-6
    result = "the same number" if same else "another number: code, data or libraries differ"
    return pd.DataFrame([line]), f"Measured again while this page was built: {result}."


def _at_hand(folder: Path, name: str, sha256: str) -> Subject | None:
    """A recorded scan, if exactly its bytes are available here."""
    plan = read_plan(folder / PLAN)
    own = [subject(v, (NATIVE,)) for v in plan.volumes] if plan else []
    people = own or subjects("quick")
    return next((s for s in people if s.name == name and s.data_sha256 == sha256), None)


def wins_by_metric(found: list[Recorded]) -> pd.DataFrame:
    """On how many scans MedIL is the better one on their own grids, metric by metric."""
    frame, lines = rows_of_gains(found), []
    for metric, known in METRICS.items():
        if metric in set(frame["metric"]) and known.higher_is_better is not None:
            values = gains_of(frame, metric, NATIVE)
            won = int((values > 0).sum())
            lines.append({"Metric": known.title, "Scans won": won, "n": len(values)})
    return pd.DataFrame(lines)
