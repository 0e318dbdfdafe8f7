"""The gain over the best linear code of equal size, as a curve over voxel sizes.

From the lines of `eval.reconstruction.report.wide` to a table, sentences and what is drawn;
measures nothing.
"""

from __future__ import annotations

from itertools import groupby

import pandas as pd

from eval.cited import cited
from eval.coders.base import LINEAR, models, title_of
from eval.pairs import counted, interval
from eval.reconstruction.sizes import CUBES, KINDS, OWN, QUESTIONS
from eval.stats import Paired, compare
from eval.tables import decimals, few_heads

NOT_RECORDED = (
    "The gain by voxel size on the same brains is not recorded yet; "
    "python -m eval.reconstruction --profile gpu records it."
)
KEEPS_ALL = 0.999  # numbers a voxel from which on a linear code keeps every voxel
WINS, LOSES, UNDECIDED, UNCOMPRESSED = "wins", "loses", "undecided", "no compression"


def belongs(table: pd.DataFrame) -> pd.Series:
    """Whether each line is one of the curve's."""
    return table["condition"].isin(QUESTIONS)


def points(table: pd.DataFrame) -> pd.DataFrame:
    """One line a model and voxel size: means over brains, and what they allow to say.

    Args:
        table: Lines of `wide`.

    Returns:
        `arm`; `kind`, the line of the curve; `size_mm`, its place there: the cube's side or the
        slice's thickness; `text`, the voxel; `volume_mm3`; `per_voxel`, numbers kept a voxel;
        `psnr` and `rival_db` of the best linear code, brain by brain, in dB; `gain`, the paired
        difference with its interval (`Paired`), None where nothing is compressed; `said`.
    """
    lines = []
    for arm in models(table["arm"]):
        for condition in QUESTIONS:
            found = table[(table["arm"] == arm) & (table["condition"] == condition)]
            found = found.dropna(subset="rival_db")
            if len(found):
                lines.append({"arm": arm, **_place(found, condition), **_means(found)})
    return pd.DataFrame(lines)


def _place(found: pd.DataFrame, condition: str) -> dict[str, object]:
    if condition == OWN:
        volume = found["spacing_in_mm"].map(_volume_mm3).mean()
        return {
            "kind": CUBES,
            "size_mm": volume ** (1 / 3),
            "text": "its own",
            "volume_mm3": volume,
        }
    kind, spacing_mm = KINDS[condition]
    size_mm, text = max(spacing_mm), condition.partition(" -> ")[0].replace(" x ", " × ")
    a, b, c = spacing_mm
    return {"kind": kind, "size_mm": size_mm, "text": text, "volume_mm3": a * b * c}


def _volume_mm3(spacing: str) -> float:
    """Of voxels as the rows write them, such as ``0.87 x 0.87 x 1``."""
    sides = [float(side) for side in spacing.split(" x ")]
    return sides[0] ** 3 if len(sides) == 1 else sides[0] * sides[1] * sides[2]


def _means(found: pd.DataFrame) -> dict[str, object]:
    per_voxel = found["numbers_per_voxel"].mean()
    gain = None
    if per_voxel < KEEPS_ALL:
        gain = compare(found["gain_db"].to_numpy()[:, None])
    means = {name: found[name].mean() for name in ("psnr", "rival_db")}
    return {"per_voxel": per_voxel, **means, "gain": gain, "said": _said(gain), "n": len(found)}


def _said(gain: Paired | None) -> str:
    if gain is None:
        return UNCOMPRESSED
    return WINS if gain.low > 0 else LOSES if gain.high < 0 else UNDECIDED


def curve_table(table: pd.DataFrame) -> pd.DataFrame:
    """One line a model and voxel size, for people: gain with its 95 % interval over brains."""
    lines = []
    for point in points(table).itertuples(index=False):
        compressed = point.said != UNCOMPRESSED
        lines.append(
            {
                "Voxels": point.kind,
                "Size (mm)": point.text,
                "Volume (mm³)": decimals(point.volume_mm3, 2),
                "Numbers per voxel": decimals(point.per_voxel, 3),
                "Code": title_of(point.arm),
                "PSNR (dB)": decimals(point.psnr, 2),
                "Best linear code (dB)": decimals(point.rival_db, 2) if compressed else "a copy",
                "Above it (dB)": interval(point.gain) if compressed else "",
                "It": point.said,
                "n": point.n,
            }
        )
    return pd.DataFrame(lines)


def sentences(table: pd.DataFrame, arm: str) -> list[str]:
    """Where a model wins and where it loses, one sentence a line of the curve.

    It wins where the whole 95 % interval of its gain lies above zero, and loses where all of it
    lies below.
    """
    found = points(table)
    found = found[found["arm"] == arm] if len(found) else found
    told = []
    for kind, line in found.groupby("kind", sort=False) if len(found) else ():
        runs = groupby(line.itertuples(index=False), key=lambda point: point.said)
        parts = [f"{_verb(said)} {_run([*points])}" for said, points in runs]
        told.append(f"On {kind} it {'; '.join(parts)}.")
    if not told:
        return []
    n = int(found["n"].max())
    opening = (
        f"{title_of(arm)} minus the best linear code of its size, by voxel size (dB, n = "
        f"{counted(n, 'real brain')} [95 % interval over brains]).{few_heads(n)}"
    )
    return [opening, *told]


def in_short(table: pd.DataFrame, arm: str) -> list[str]:
    """Two sentences: the gain at the scans' own voxels, and where it wins and where it loses."""
    found = points(table)
    found = found[found["arm"] == arm] if len(found) else found
    own = found[found["text"] == "its own"] if len(found) else found
    if own.empty or own.iloc[0].gain is None:
        return []
    first = own.iloc[0]
    text = cited(interval(first.gain), metric="psnr", condition=OWN, arm=[arm, *LINEAR])
    gain = (
        f"At the scans' own voxels ({first.per_voxel:.2f} numbers per voxel), {title_of(arm)} "
        f"minus the best linear code of its size is {text} dB (mean over n = "
        f"{counted(int(first.n), 'real brain')} [95 % interval]).{few_heads(int(first.n))}"
    )
    return [gain, f"By voxel size it {'; it '.join(_by_size(found))}."]


def _by_size(found: pd.DataFrame) -> list[str]:
    """Such as ``wins on cubes from the scan's own voxels to 1.5 mm, on slices along S at 2 mm``."""
    parts = []
    for said in (WINS, UNDECIDED, LOSES):
        places = []
        for kind, line in found.groupby("kind", sort=False):
            runs = groupby(line.itertuples(index=False), key=lambda point: point.said)
            for named, run in runs:
                sizes = [_size(point) for point in run]
                ends = f"from {sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"at {sizes[0]}"
                places += [f"on {kind} {ends}"] * (named == said)
        if places:
            parts.append(f"{_verb(said)} {', '.join(places)}")
    return parts


def _size(point) -> str:
    return f"{point.size_mm:.3g} mm" if point.text != "its own" else "the scan's own voxels"


def _verb(said: str) -> str:
    return {UNDECIDED: "is undecided", UNCOMPRESSED: "compresses nothing"}.get(said, said)


def _run(line: list) -> str:
    """Neighbouring sizes of which the same is said: the first and the last one."""
    ends = [line[0], line[-1]][: len(line)]
    texts = [_end(point) for point in ends]
    return f"from {texts[0]} to {texts[1]}" if len(texts) == 2 else f"at {texts[0]}"


def _end(point) -> str:
    gain = f"{interval(point.gain)} dB, " if point.gain is not None else ""
    return f"{_size(point)} ({gain}{point.per_voxel:.2f} numbers per voxel)"
