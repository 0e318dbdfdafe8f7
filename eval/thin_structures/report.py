"""From prepared rows to the tables of this experiment: statistics are over chests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eval.coders.base import TITLES, release_arm
from eval.pairs import NO_SEED, Scores, counted, interval
from eval.stats import Paired
from eval.thin_structures.chests import SCANS
from eval.thin_structures.coders import CHEST, CODECS, HEADS, SCAN, SIZE
from eval.thin_structures.measure import ALL, HALF, bins
from eval.thin_structures.train import CONTROL, TRIES

OF_CHESTS, OF_HEADS = release_arm(CHEST), release_arm(HEADS)
NAMES = {
    SCAN: "the scan itself",
    OF_CHESTS: f"MedIL {CHEST}",
    OF_HEADS: f"MedIL {HEADS} (heads)",
    **{codec: TITLES[codec] for codec in CODECS},
    **{name: what.title for name, what in TRIES.items()},
}
FIRST_SCAN, *_ = SCANS
BAR = 0.15  # share by which a change should lower the radius of half recall
CT = "ct_"  # begins the subjects of real scans


def name_of(arm: str) -> str:
    """An arm for people."""
    return NAMES.get(arm, arm)


def arms_of(frame: pd.DataFrame, wanted: Sequence[str] = tuple(NAMES)) -> list[str]:
    """Those arms that have rows, in the order of the tables."""
    present = set(frame["arm"])
    return [arm for arm in wanted if arm in present]


def shown_arms(frame: pd.DataFrame) -> list[str]:
    """The scan, the releases and the codecs."""
    return arms_of(frame, [SCAN, OF_CHESTS, OF_HEADS, *CODECS])


def released_arm(frame: pd.DataFrame) -> str:
    """The release that the page is about: that of chests where it is recorded."""
    return OF_CHESTS if OF_CHESTS in set(frame["arm"]) else OF_HEADS


def scans_of(frame: pd.DataFrame) -> list[str]:
    """The scans of chests that have rows."""
    return [scan for scan in SCANS if scan in set(frame["scan"])]


def of_chests(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of synthetic chests."""
    return frame[~frame["subject"].str.startswith(CT)]


def of_ct(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of real scans."""
    return frame[frame["subject"].str.startswith(CT)]


def scores_of(frame: pd.DataFrame) -> Scores:
    """Values by (arm, scan, radii, metric); only tries have seeds of their own."""
    seeds = frame["seed"].where(frame["arm"].isin(list(TRIES)), NO_SEED)
    return Scores(frame.assign(seed=seeds), ["arm", "scan", "radii", "metric"])


def limits_mm(scan: str) -> dict[str, float]:
    """Radii of lumens as wide as half the finest wave: of the voxels, and of the latent.

    Voxels of v mm hold waves down to 2 v, so a dark lumen of diameter v between bright walls. A
    latent that keeps one number for 8 mm³ holds as many waves as voxels of 2 mm do.
    """
    pitch_mm = SIZE[0] / SIZE[1] ** (1 / 3)
    return {"voxels, in plane": SCANS[scan][0] / 2, "latent": pitch_mm / 2}


@dataclass(frozen=True)
class Curve:
    """A metric by radius: means over chests, with their intervals."""

    radius_mm: np.ndarray  # [N] geometric middle of each bin
    levels: tuple[Paired, ...]

    @property
    def means(self) -> np.ndarray:
        """[N]."""
        return np.array([level.mean for level in self.levels])

    @property
    def band(self) -> tuple[np.ndarray, np.ndarray]:
        """[N] lower and [N] upper ends of the intervals."""
        low, high = zip(*((level.low, level.high) for level in self.levels), strict=True)
        return np.array(low), np.array(high)


def curve(frame: pd.DataFrame, arm: str, scan: str, metric: str) -> Curve | None:
    """A metric of an arm by radius; None where it is not recorded."""
    scores = scores_of(of_chests(frame))
    found = [(name, scores.level(arm, scan, name, metric)) for name in bins()]
    known = [(_middle_mm(name), level) for name, level in found if level]
    if not known:
        return None
    radii_mm, levels = zip(*known, strict=True)
    return Curve(np.array(radii_mm), levels)


def _middle_mm(name: str) -> float:
    low, high = map(float, name.split("-"))
    return float(np.sqrt(low * high))


def how_long(frame: pd.DataFrame) -> str:
    """How long, on how many scans and with how many seeds the tries were trained: a sentence."""
    own = frame[frame["arm"].isin(list(TRIES))]
    if own.empty:
        return "*No change has been trained yet.*"
    seeds = counted(int(own["seed"].nunique()), "training seed")
    return (
        f"Recorded: {own['arm'].nunique()} of {len(TRIES)} models, {seeds}, scored on "
        f"{counted(int(own['subject'].nunique()), 'chest')}. All are exploratory."
    )


# Tables


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """How many airways of each bin were measured, in how many chests."""
    own = of_chests(frame)
    own = own[(own["arm"] == SCAN) & (own["metric"] == "airways")]
    lines = []
    for name in bins():
        line = {"Radius (mm)": name.replace("-", " to ")}
        for scan in SCANS:
            here = own[(own["radii"] == name) & (own["scan"] == scan)]["value"]
            line[f"{scan}: airways"] = f"{here.sum():.0f} in {len(here)}"
        lines.append(line)
    return pd.DataFrame(lines)


def half_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The radius at which half of the lumens are found, by arm and scan."""
    scores, lines = scores_of(of_chests(frame)), []
    for arm in arms_of(of_chests(frame)):
        levels = {scan: scores.level(arm, scan, ALL, HALF) for scan in SCANS}
        known = [level for level in levels.values() if level]
        if known:
            texts = {f"{s} (mm)": interval(v, 2, False) if v else "" for s, v in levels.items()}
            lines.append({"Half of the lumens are found at": name_of(arm)} | texts | _n(known[0]))
    return pd.DataFrame(lines)


def tries_table(frame: pd.DataFrame, scan: str = FIRST_SCAN) -> pd.DataFrame:
    """What each change does to the radius of half recall, against the control."""
    scores, lines = scores_of(of_chests(frame)), []
    control = scores.level(CONTROL, scan, ALL, HALF)
    for arm in arms_of(of_chests(frame), list(TRIES)):
        level, moved = scores.level(arm, scan, ALL, HALF), change(scores, arm, scan)
        if control and level:
            shift = "" if arm == CONTROL or not moved else percent(moved)
            line = {"Change": name_of(arm), "half found at (mm)": interval(level, 2, False)}
            lines.append(line | {"against control": shift} | _n(level))
    return pd.DataFrame(lines)


def change(scores: Scores, arm: str, scan: str, other: str = CONTROL) -> Paired | None:
    """The difference of an arm's radius of half recall from another's, over the other's mean."""
    gap = scores.gap((arm, scan, ALL, HALF), (other, scan, ALL, HALF))
    level = scores.level(other, scan, ALL, HALF)
    if gap is None or level is None:
        return None
    share = {name: getattr(gap, name) / level.mean for name in ("mean", "low", "high")}
    return Paired(**vars(gap) | share)


def percent(pair: Paired) -> str:
    """Such as ``-3 % [-5, -1]``."""
    return f"{pair.mean:+.0%} [{pair.low:+.0%}, {pair.high:+.0%}]".replace("%", " %")


def detail_table(frame: pd.DataFrame, scan: str = FIRST_SCAN) -> pd.DataFrame:
    """Contrast and error of the radius by bin, for the scan, the release and the best codec."""
    scores, lines = scores_of(of_chests(frame)), []
    for name in bins():
        line = {"Radius (mm)": name.replace("-", " to ")}
        for arm in arms_of(frame, [SCAN, released_arm(frame), CODECS[0]]):
            contrast = scores.level(arm, scan, name, "contrast")
            error = scores.level(arm, scan, name, "radius_error_mm")
            line[f"{name_of(arm)}: contrast"] = f"{contrast.mean:.2f}" if contrast else "–"
            line[f"{name_of(arm)}: radius error (mm)"] = f"{error.mean:.2f}" if error else "–"
        lines.append(line)
    return pd.DataFrame(lines)


def alarms_table(frame: pd.DataFrame) -> pd.DataFrame:
    """How often the rule finds a lumen where none is, all radii together, by arm and scan."""
    own = of_chests(frame)
    own = own[own["metric"] == "false_alarms"]
    means = own.groupby(["arm", "scan"])["value"].mean()
    return pd.DataFrame([
        {"Arm": name_of(arm)}
        | {scan: f"{100 * means[arm, scan]:.1f} %" for scan in SCANS if (arm, scan) in means}
        for arm in arms_of(own)
    ])  # fmt: skip


def ct_table(frame: pd.DataFrame, encoded: str = "training") -> pd.DataFrame:
    """Errors of real scans in HU, in the lung and the mediastinal window."""
    own = of_ct(frame)
    own = own[own["radii"] == encoded]
    wide = own.set_index(["subject", "arm", "scan", "metric"])["value"]
    lines = []
    for subject in dict.fromkeys(own["subject"]):
        for arm in arms_of(own[own["subject"] == subject]):
            line = {"Scan": ct_name(subject), "Arm": name_of(arm)}
            for shown in ("lung", "mediastinum"):
                mae, psnr = (wide[subject, arm, f"{shown} window", m] for m in ("mae_hu", "psnr"))
                line[f"{shown}: MAE (HU) / PSNR (dB)"] = f"{mae:.1f} / {psnr:.2f}"
            lines.append(line)
    return pd.DataFrame(lines)


def windows_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The release encoded in its training window and in the lung window: errors in HU."""
    own = of_ct(frame)
    own = own[(own["arm"] == released_arm(frame)) & (own["metric"] == "mae_hu")]
    lines = []
    for (subject, shown), group in own.groupby(["subject", "scan"], sort=False):
        values = group.set_index("radii")["value"]
        line = {"Scan": ct_name(subject), "Seen in": shown}
        lines.append(line | {f"encoded: {k} window": f"{v:.1f} HU" for k, v in values.items()})
    return pd.DataFrame(lines)


def ct_name(subject: str) -> str:
    """A real scan for people."""
    return subject.removeprefix(CT).replace("_", " ")


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem, from prepared rows."""
    made = {
        "half": half_table(frame),
        "tries": tries_table(frame),
        "detail": detail_table(frame),
        "counts": counts(frame),
        "false_alarms": alarms_table(frame),
        "ct": ct_table(frame),
        "windows": windows_table(frame),
    }
    return {f"thin_structures_{name}": table for name, table in made.items()}


def _n(pair: Paired) -> dict[str, str]:
    return {"n": f"{pair.n_subjects} × {pair.n_seeds}"}
