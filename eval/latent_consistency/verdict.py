"""Sentences on latent consistency, with n and intervals over heads, from recorded rows."""

from __future__ import annotations

import pandas as pd

from eval.cited import cited
from eval.coders.base import SPLINES, models
from eval.latent_consistency import conditions as names
from eval.latent_consistency.conditions import SAME, SMOOTHER, WHOLE
from eval.latent_consistency.report import (
    HEADERS,
    QUESTIONS,
    arm_title,
    coarse_table,
    consistency_table,
    header_table,
    information_table,
)
from eval.tables import with_interval

FAR = 10  # times what the splines feel: more is the network's doing
CONTROLS = {
    names.TRANSPORTED: "resampling a latent onto its own cells alone changes it by",
    names.SHIFTED_CELLS: "encoding on shifted cells and resampling back changes a latent by",
}


def verdict(frame: pd.DataFrame) -> str:
    """A sentence or two on each question, about the first model."""
    arm = models(frame["arm"])[0]
    frame = frame[frame["arm"].isin([arm, f"{arm}{SPLINES}"])]
    table = consistency_table(frame)
    model = table[table["Arm"] == arm_title(arm)].set_index(["Question", "Channels", "Scanned"])
    opening = (
        f"Distances between latents, divided by the mean distance between n = {model['n'].max()} "
        "held-out heads [95 % interval over heads]."
    )
    sentences = [opening, *_kept(model), *_controls(model), *_information(frame, arm)]
    return "\n".join([*sentences, *_headers(frame, arm), *_coarse(frame, arm)])


def answer(frame: pd.DataFrame) -> list[str]:
    """Another grid, another resolution, a wrong header: a line each, about the first model."""
    arm = models(frame["arm"])[0]
    frame = frame[frame["arm"].isin([arm, f"{arm}{SPLINES}"])]
    table = consistency_table(frame)
    own = table[(table["Arm"] == arm_title(arm)) & (table["Question"] == QUESTIONS[SAME])]
    own = own[own["Bar"].notna()].sort_values("Distance")
    lines = []
    if len(own) > 1:
        least, most = (
            f"{_moved(_distance(line), arm, SAME, line['Scanned'])} ({line['Scanned']})"
            for _, line in own.iloc[[0, -1]].iterrows()
        )
        lines.append(
            f"Another grid, same content: the latent moves by {least} to {most} of the distance "
            f"between two heads (n = {own['n'].max()} heads [95 % interval])."
        )
    wanted = ("From 1 mm to 2 mm", "A header that is off by 1 mm ")
    every = [*_information(frame, arm), *_headers(frame, arm)]
    return lines + [line for line in every if line.startswith(wanted)]


def _kept(model: pd.DataFrame) -> list[str]:
    """Where a latent should stay the same."""
    judged = model[model["Bar"].notna()]
    sentences = []
    for question, channels in ((QUESTIONS[SAME], "all channels"),
                               (QUESTIONS[WHOLE], "coarse channel")):  # fmt: skip
        lines = judged[judged.index.get_level_values("Question") == question]
        parts = [f"{key[2]} {_distance(line)}" for key, line in lines.iterrows()]
        if parts:
            sentences.append(f"{question.capitalize()}, {channels}: {'; '.join(parts)}.")
    return sentences


def _controls(model: pd.DataFrame) -> list[str]:
    keys = {(QUESTIONS[SAME], "all", scan): words for scan, words in CONTROLS.items()}
    return [
        f"For comparison, {words} {_distance(model.loc[key])}."
        for key, words in keys.items()
        if key in model.index
    ]


def _information(frame: pd.DataFrame, arm: str) -> list[str]:
    table = information_table(frame)
    table = table[table["Channels"] == "all"].set_index(["Arm", "Scanned"])
    sentences = []
    for scanned in ("1.5 mm", "2 mm", "1 x 1 x 3 mm"):
        key, splines = ((arm_title(a), scanned) for a in (arm, f"{arm}{SPLINES}"))
        if key not in table.index:
            continue
        line, alone = table.loc[key], ""
        if splines in table.index:
            alone = f" ({table.loc[splines]['Grid alone']:.3f} with the splines alone)"
            if line["Grid alone"] > FAR * table.loc[splines]["Grid alone"]:
                alone += ", so the network reads the grid"
        whole, grid_alone, rest = (
            _moved(text, arm, content, scanned)
            for text, content in (
                (f"{line['With resolution']:.3f}", WHOLE),
                (f"{line['Grid alone']:.3f}", SMOOTHER),
                (_distance(line, "Difference"), [WHOLE, SMOOTHER]),
            )
        )
        sentences.append(
            f"From 1 mm to {scanned} the latent moves {whole} of the way to another head (all "
            f"channels). Where both grids hold the whole content, the grid alone moves it by "
            f"{grid_alone}{alone}; the rest, {rest}, "
            f"{_weighed(line)} (n = {line['n']})."
        )
    return sentences


def _weighed(line: pd.Series) -> str:
    if line["Low"] > 0:
        return "is due to the resolution"
    if line["High"] < 0:
        return "is below zero: the grid alone changes more than grid and resolution together"
    return "cannot be distinguished from zero"


def _headers(frame: pd.DataFrame, arm: str) -> list[str]:
    table = header_table(frame)
    table = table[table["Arm"] == arm_title(arm)].set_index(["Kind", "By"])
    errors = [("header off", mm, "A header that is off by {} mm") for mm in names.HEADER_MM[1:]]
    errors += [
        ("truly scanned there", names.HEADER_MM[-2], "A scan whose voxels really lie {} mm off")
    ]
    sentences = []
    for kind, mm, words in errors:
        if (kind, mm) in table.index:
            line = table.loc[kind, mm]
            scan = next(name for name, (k, by, _) in HEADERS.items() if (k, by) == (kind, mm))
            distance = _moved(_distance(line), arm, WHOLE, scan)
            lost = cited(_db(line), arm=arm, metric="psnr", latent=[scan, names.off(0.0)])
            sentences.append(
                f"{words.format(f'{mm:g}')} changes the latent by {distance} and costs "
                f"{lost} of PSNR at the true place (n = {line['n']})."
            )
    return sentences


def _coarse(frame: pd.DataFrame, arm: str) -> list[str]:
    table = coarse_table(frame)
    return [
        f"Taking the coarse channel from a 2 mm scan costs {_db(line)} of PSNR at 1 mm "
        f"(n = {line['n']})."
        for _, line in table.iterrows()
        if line["Arm"] == arm_title(arm)
    ]


def _moved(text: str, arm: str, content: str | list[str], scanned: str) -> str:
    """A distance between latents, beside that between two heads."""
    return cited(
        text, arm=arm, content=content, scanned=[scanned, names.ANOTHER], channels="all",
        metric="latent_rms",
    )  # fmt: skip


def _distance(line: pd.Series, name: str = "Distance") -> str:
    return with_interval(line[name], line["Low"], line["High"], 3)


def _db(line: pd.Series) -> str:
    """Mean with its unit and interval, such as ``0.52 dB [0.50, 0.56]``."""
    text = with_interval(line["Lost (dB)"], line["Low (dB)"], line["High (dB)"])
    return text.replace(" [", " dB [")
