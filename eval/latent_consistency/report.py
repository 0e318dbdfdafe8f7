"""The tables and the sentences on latent consistency, from recorded rows; measures nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from eval.latent_consistency import conditions as names
from eval.latent_consistency.conditions import EXPERIMENT, SAME, WHOLE
from eval.latent_consistency.summary import (
    ARMS,
    CONTROLS,
    QUESTIONS,
    coarse_table,
    consistency_table,
    header_table,
    information_table,
    newest,
)
from eval.rows import recorded as rows_of
from medil.errors import InputError
from medil.system.files import atomic_output

LOST_BAR_DB = 0.3
MODEL = ARMS["medil"]
TABLES = {
    f"{EXPERIMENT}.csv": consistency_table,
    f"{EXPERIMENT}_information.csv": information_table,
    f"{EXPERIMENT}_header.csv": header_table,
    f"{EXPERIMENT}_db.csv": coarse_table,
}


def verdict(frame: pd.DataFrame) -> str:
    """What the rows say about each question, a sentence or two each, with n and intervals.

    Args:
        frame: Recorded rows.

    Returns:
        Lines of text.

    Raises:
        InputError: The experiment has no rows.
    """
    table = consistency_table(frame)
    model = table[table["Arm"] == MODEL].set_index(["Question", "Channels", "Scanned"])
    opening = (
        f"Distances between latents, as fractions of those between n = {model['n'].max()} "
        "held-out heads [95 % interval over heads]."
    )
    sentences = [opening, *_bars(model), *_controls(model), *_information(frame)]
    return "\n".join([*sentences, *_headers(frame), *_coarse(frame)])


def _bars(model: pd.DataFrame) -> list[str]:
    sentences, judged = [], model[model["Bar"].notna()]
    for question, channels in ((QUESTIONS[SAME], "all channels"),
                               (QUESTIONS[WHOLE], "coarse channel")):  # fmt: skip
        lines = judged[judged.index.get_level_values("Question") == question]
        if lines.empty:
            continue
        told = [f"{key[2]} {_told(line)}" for key, line in lines.iterrows()]
        missed = [key[2] for key, line in lines.iterrows() if line["Within"] == "no"]
        end = f"missed by {', '.join(missed)}" if missed else "met by all"
        sentences.append(
            f"{question[0].upper()}{question[1:]}, {channels}: {'; '.join(told)}: the bar of "
            f"{lines['Bar'].iloc[0]:.2f} is {end}."
        )
    return sentences


def _controls(model: pd.DataFrame) -> list[str]:
    keys = [(QUESTIONS[SAME], "all", control) for control in CONTROLS[1:]]
    return [
        f"For comparison, {key[2]}: {_told(model.loc[key])}." for key in keys if key in model.index
    ]


def _information(frame: pd.DataFrame) -> list[str]:
    table = information_table(frame)
    table = table[table["Channels"] == "all"].set_index(["Arm", "Scanned"])
    sentences = []
    for scanned in ("1.5 mm", "2 mm", "1 x 1 x 3 mm"):
        if (MODEL, scanned) not in table.index:
            continue
        line, splines = table.loc[(MODEL, scanned)], (ARMS["medil_splines"], scanned)
        alone = ""
        if splines in table.index:
            alone = f", its splines alone {table.loc[splines]['Grid alone']:.3f}"
        sentences.append(
            f"From 1 mm to {scanned}, all channels: {line['With resolution']:.3f}. A content that "
            f"both grids hold feels {line['Grid alone']:.3f}"
            f"{alone}; the difference, "
            f"{_told(line, 'Difference')}, {_weighed(line)} (n = {line['n']})."
        )
    return sentences


def _weighed(line: pd.Series) -> str:
    if line["Low"] > 0:
        return "comes with the resolution"
    if line["High"] < 0:
        return "is below zero: the grid alone costs more than the whole"
    return "cannot be told from zero"


def _headers(frame: pd.DataFrame) -> list[str]:
    table = header_table(frame)
    table = table[table["Arm"] == MODEL].set_index(["Kind", "By"])
    sentences = []
    for mm in names.HEADER_MM[1:]:
        if ("header off", mm) not in table.index:
            continue
        line = table.loc["header off", mm]
        sentences.append(
            f"A header that is off by {mm:g} mm moves the latent by {_told(line)} and costs "
            f"{_told_db(line)} at the true place (n = {line['n']})."
        )
    for mm in names.HEADER_MM[-2:-1]:
        if ("truly scanned there", mm) not in table.index:
            continue
        line = table.loc["truly scanned there", mm]
        sentences.append(
            f"A scan truly taken {mm:g} mm off, under the same header, gives a latent "
            f"{_told(line)} away and loses {_told_db(line)} (n = {line['n']})."
        )
    return sentences


def _coarse(frame: pd.DataFrame) -> list[str]:
    table = coarse_table(frame)
    sentences = []
    for line in table[table["Arm"] == MODEL].itertuples(index=False) if len(table) else ():
        db, low, high, n = line[3:7]
        sentences.append(
            f"Taking the coarse channel from a 2 mm scan costs {db:.2f} dB [{low:.2f}, "
            f"{high:.2f}] at 1 mm (n = {n}): the bar of {LOST_BAR_DB} dB is "
            f"{'met' if db <= LOST_BAR_DB else 'missed'}."
        )
    return sentences


def _told(line: pd.Series, name: str = "Distance") -> str:
    return f"{line[name]:.3f} [{line['Low']:.3f}, {line['High']:.3f}]"


def _told_db(line: pd.Series) -> str:
    return f"{line['Lost (dB)']:.2f} dB [{line['Low (dB)']:.2f}, {line['High (dB)']:.2f}]"


def recorded(folder: Path) -> pd.DataFrame | None:
    """The experiment's newest rows in a folder; None where there are none to build a table on."""
    frame = rows_of(folder, EXPERIMENT)
    try:
        return None if frame is None else newest(frame)
    except InputError:
        return None


def tables(rows_folder: Path, out: Path) -> list[Path]:
    """Write every table and the verdict.

    Args:
        rows_folder: Holds ``latent_consistency.jsonl``.
        out: Folder of the tables; made with its parents.

    Returns:
        What was written; nothing where there are no rows yet.
    """
    frame = recorded(rows_folder)
    if frame is None:
        return []
    texts = {
        name: make(frame).to_csv(index=False, float_format="%.4f") for name, make in TABLES.items()
    }
    texts[f"{EXPERIMENT}.txt"] = verdict(frame) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with atomic_output(out / name, force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [out / name for name in texts]
