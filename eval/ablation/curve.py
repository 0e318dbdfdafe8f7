"""The curve of learning: PSNR after 1/8, 1/4, 1/2 and all of the steps, and who levelled off."""

from __future__ import annotations

import pandas as pd

from eval.ablation.measure import CURVE, CURVE_AT
from eval.ablation.names import name_of
from eval.pairs import Scores, interval
from eval.stats import Paired

LEVEL_DB = 0.1  # gain over the last doubling of the steps below which a curve has levelled off


def curve_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Points of curves among prepared rows: PSNR of each subject, seed and number of steps."""
    chosen = frame[(frame["experiment"] == CURVE) & (frame["metric"] == "psnr")]
    return chosen.assign(steps=chosen["steps"].map("{:.0f}".format))


def curve_table(curve: pd.DataFrame) -> pd.DataFrame:
    """One line an arm: PSNR after so many steps, and the gain over the last doubling."""
    psnr, lines = Scores(curve, ["arm", "steps"]), []
    for arm in dict.fromkeys(curve["arm"]):
        steps = _steps(curve, arm)
        levels = {f"{int(n):,} steps (dB)": psnr.level(arm, n) for n in steps}
        gain = last_doubling(curve, arm)
        first = next(level for level in levels.values() if level)
        lines.append(
            {"Arm": name_of(arm)}
            | {header: f"{level.mean:.2f}" for header, level in levels.items() if level}
            | {
                "Last doubling (dB)": interval(gain) if gain else "",
                "Levelled off": {None: "", True: "yes", False: "no"}[levelled(gain)],
                "Subjects": first.n_subjects,
                "Seeds": first.n_seeds,
            }
        )
    return pd.DataFrame(lines)


def last_doubling(curve: pd.DataFrame, arm: str) -> Paired | None:
    """What an arm gained from half of its steps to all of them; None where that is not recorded."""
    steps = _steps(curve, arm)
    if len(steps) < 2 or int(steps[-1]) // 2 != int(steps[-2]):
        return None
    return Scores(curve, ["arm", "steps"]).gap((arm, steps[-1]), (arm, steps[-2]))


def _steps(curve: pd.DataFrame, arm: str) -> list[str]:
    return sorted(curve.loc[curve["arm"] == arm, "steps"].unique(), key=int)


def levelled(gain: Paired | None) -> bool | None:
    """Whether a last doubling gained less than `LEVEL_DB`; None where it is not known."""
    return None if gain is None else gain.mean < LEVEL_DB


def levels_off(curve: pd.DataFrame) -> str:
    """One sentence: which arms levelled off, and what the others still gained."""
    gains = {arm: last_doubling(curve, arm) for arm in dict.fromkeys(curve["arm"])}
    still = {arm: gain for arm, gain in gains.items() if gain and not levelled(gain)}
    flat = [name_of(arm) for arm, gain in gains.items() if levelled(gain)]
    if not (still or flat):
        return "No curve of learning is recorded for these runs, so nothing says who levelled off."
    rising = "; ".join(f"{name_of(arm)} ({gain.mean:+.2f} dB)" for arm, gain in still.items())
    return (
        f"Over the last doubling of the steps, at {CURVE_AT}, less than {LEVEL_DB} dB was gained "
        f"by {'; '.join(flat) or 'no arm'}. Still rising: {rising or 'no arm'}."
    )
