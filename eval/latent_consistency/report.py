"""From recorded rows to distances in units of those between heads, and their tables."""

from __future__ import annotations

import pandas as pd

from eval import rows
from eval.coders.base import MEDIL, SPLINES, title_of
from eval.latent_consistency import conditions as names
from eval.latent_consistency.conditions import ANOTHER, NAME, SAME, SMOOTHER, WHOLE
from eval.stats import compare
from eval.tables import with_interval
from medil.errors import InputError

ARMS = {f"{MEDIL}{SPLINES}": "Splines alone"}  # where tables call an arm otherwise
QUESTIONS = {
    SAME: "same content, another grid",
    SMOOTHER: "same smoother content, another grid",
    WHOLE: "another resolution",
}
CONTROLS = (ANOTHER, names.TRANSPORTED, names.SHIFTED_CELLS)  # no bar is set for them
GRID_BAR, RESOLUTION_BAR = 0.05, 0.15
JUDGED_RESOLUTIONS = ("2 mm", "2 mm, aligned")
HEADERS = {  # scan -> kind, amount and unit
    name(amount): (kind, amount, unit)
    for kind, name, amounts, unit in (
        ("header off", names.off, names.HEADER_MM, "mm"),
        ("header turned", names.turned_by, names.HEADER_DEG, "degrees"),
        ("truly scanned there", names.truly, names.HEADER_MM[1:], "mm"),
        ("head moved", names.moved, names.HEADER_MM[1:], "mm"),
    )
    for amount in amounts
}


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each arm's newest weights, each arm and cohort in its newest configuration.

    Raises:
        InputError: No row is about the distance between heads.
    """
    frame = frame[frame["experiment"] == NAME]
    weights = frame.groupby("arm")["weights_sha256"].transform("last")
    frame = frame[frame["weights_sha256"] == weights]
    between = frame["condition"].str.contains(f"-> {ANOTHER}", regex=False)
    if not (between & (frame["metric"] == "latent_rms")).any():
        raise InputError(f"there are no rows on the distance between heads; run: eval.{NAME}")
    last = frame.groupby(["arm", between])["config_hash"].transform("last")
    return rows.latest(frame[frame["config_hash"] == last])


def distances(frame: pd.DataFrame) -> pd.DataFrame:
    """Compared latents, one line per head, arm, content, scan and kind of channels.

    `distance` is `latent_rms` divided by its mean between heads, for the same arm, content and
    channels.
    """
    frame = frame[frame["metric"].isin(names.DIFFERENCES)]
    keys = ["arm", "content", "scanned", "channels", "subject"]
    order = frame[keys].drop_duplicates()
    wide = frame.pivot(index=keys, columns="metric", values="value")
    wide = wide.reindex(pd.MultiIndex.from_frame(order)).reset_index()
    apart = wide[wide["scanned"] == ANOTHER].groupby(["arm", "content", "channels"])
    unit = apart["latent_rms"].mean().rename("unit").reset_index()
    wide = wide.merge(unit, on=["arm", "content", "channels"])
    return wide.assign(distance=wide["latent_rms"] / wide["unit"])


def arm_title(arm: str) -> str:
    """An arm as the tables of this experiment call it."""
    return ARMS.get(arm) or title_of(arm)


def spread(values: pd.Series, unit: str = "") -> dict[str, float]:
    """Lower and upper end of the 95 % interval of the mean over heads, and n heads."""
    found = compare(values.to_numpy()[:, None])
    return {f"Low{unit}": found.low, f"High{unit}": found.high, "n": found.n_subjects}


def consistency_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per condition, kind of channels and arm: mean distance with its 95 % interval.

    Also relative L2, cosine, n heads, the bar where one is set, and whether it is met.
    """
    found = distances(frame)
    found = found[~found["scanned"].str.startswith(("head", "truly"))]  # have a table of their own
    lines = []
    for key, group in found.groupby(["content", "scanned", "channels", "arm"], sort=False):
        content, scanned, channels, arm = key
        mean, limit = group["distance"].mean(), bar(content, scanned, channels)
        lines.append(
            {
                "Question": QUESTIONS[content],
                "Scanned": scanned,
                "Channels": channels,
                "Arm": arm_title(arm),
                "Distance": mean,
                **spread(group["distance"]),
                "L2": group["latent_l2"].mean(),
                "Cosine": group["latent_cosine"].mean(),
                "Bar": limit,
                "Within": "" if pd.isna(limit) else "yes" if mean <= limit else "no",
            }
        )
    first = [*QUESTIONS.values(), ANOTHER, *names.PLACES, *names.FINE, *CONTROLS, names.TURNED]
    columns = ["Question", "Scanned", "Channels", "Arm", "Distance", "Low", "High"]
    table = pd.DataFrame(lines, columns=[*columns, "L2", "Cosine", "n", "Bar", "Within"])
    return in_order(table, ["Question", "Channels", "Arm", "Scanned"], first)


def in_order(table: pd.DataFrame, columns: list[str], first: list[str]) -> pd.DataFrame:
    """Lines sorted by columns; names that `first` lists in its order, others by alphabet."""
    rank = {name: k for k, name in enumerate(dict.fromkeys(first))}
    return table.sort_values(
        columns,
        kind="stable",
        ignore_index=True,
        key=lambda c: c.map(rank) if c.isin(rank).all() else c,
    )


def bar(content: str, scanned: str, channels: str) -> float:
    """The largest distance that we accept; NaN where we set none."""
    if content == SAME and channels == "all" and scanned not in CONTROLS:
        return GRID_BAR
    if content == WHOLE and channels == "coarse" and scanned in JUDGED_RESOLUTIONS:
        return RESOLUTION_BAR
    return float("nan")


def information_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Distance by grid: without and with a change of resolution, and the mean difference.

    Only heads that were scanned both ways count; 95 % intervals over heads.
    """
    found = distances(frame)
    found = found[found["scanned"].isin(names.PLACES) & found["content"].isin([SMOOTHER, WHOLE])]
    index = ["scanned", "channels", "arm", "subject"]
    wide = found.pivot(index=index, columns="content", values="distance").dropna()
    lines = [
        {
            "Scanned": scanned,
            "Channels": channels,
            "Arm": arm_title(arm),
            "Grid alone": group[SMOOTHER].mean(),
            "With resolution": group[WHOLE].mean(),
            "Difference": (group[WHOLE] - group[SMOOTHER]).mean(),
            **spread(group[WHOLE] - group[SMOOTHER]),
        }
        for (scanned, channels, arm), group in wide.groupby(["scanned", "channels", "arm"])
    ]
    return in_order(pd.DataFrame(lines), ["Channels", "Arm", "Scanned"], list(names.PLACES))


def header_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Effect of a wrong header and, as a control, of a head that really moved.

    Mean distance over all channels and dB lost on the true voxels, with 95 % intervals over heads.
    """
    found = distances(frame)
    found = found[(found["content"] == WHOLE) & (found["channels"] == "all")]
    lost = lost_db(frame).groupby(["arm", "latent"])["lost_db"]
    lines = []
    for scanned, (kind, amount, unit) in HEADERS.items():
        for arm, group in found[found["scanned"] == scanned].groupby("arm"):
            line = {"Kind": kind, "By": amount, "Unit": unit, "Arm": arm_title(arm)}
            line |= {"Distance": group["distance"].mean(), **spread(group["distance"])}
            line["Cosine"] = group["latent_cosine"].mean()
            if (arm, scanned) in lost.groups:
                db = lost.get_group((arm, scanned))
                line |= {"Lost (dB)": db.mean(), **spread(db, " (dB)")}
            lines.append(line | {"n": len(group)})
    columns = ["Kind", "By", "Unit", "Arm", "Distance", "Low", "High", "Cosine"]
    return pd.DataFrame(lines, columns=[*columns, "Lost (dB)", "Low (dB)", "High (dB)", "n"])


BRACKETS = (("Difference", "Low", "High"), ("Distance", "Low", "High"),
            ("Lost (dB)", "Low (dB)", "High (dB)"))  # fmt: skip


def in_brackets(table: pd.DataFrame) -> pd.DataFrame:
    """A table for people: intervals beside their means, an amount with its unit."""
    for value, low, high in BRACKETS:
        if {value, low, high} <= set(table):
            digits, lines = (2 if "dB" in value else 3), table[[value, low, high]].values
            told = [
                "" if pd.isna(at) else with_interval(at, lo, hi, digits) for at, lo, hi in lines
            ]
            table = table.assign(**{value: told}).drop(columns=[low, high])
    if {"By", "Unit"} <= set(table):
        amounts = [f"{by:g} {unit}" for by, unit in zip(table["By"], table["Unit"], strict=True)]
        table = table.assign(By=amounts).drop(columns="Unit")
    return table


def lost_db(frame: pd.DataFrame) -> pd.DataFrame:
    """Decibels that each rendered latent loses at 1 mm against the head's own, head by head.

    A latent that was resampled is compared with one that was resampled under the true header.
    """
    db = frame[frame["metric"] == "psnr"].set_index(["arm", "subject", "latent"])["value"]
    lines = []
    for (arm, subject, latent), value in db.dropna().sort_index().items():
        went_away = "turned" in latent  # to cells of its own, and back
        own = db[arm, subject, names.TRANSPORTED if went_away else names.off(0.0)]
        lines.append((arm, subject, latent, own, value, own - value))
    columns = ["arm", "subject", "latent", "own_db", "psnr_db", "lost_db"]
    return pd.DataFrame(lines, columns=columns)


def coarse_table(frame: pd.DataFrame) -> pd.DataFrame:
    """PSNR at 1 mm with the own latent and with the coarse part of a 2 mm scan, by arm."""
    lost = lost_db(frame)
    return pd.DataFrame(
        {
            "Arm": arm_title(arm),
            "Own latent (dB)": group["own_db"].mean(),
            "Coarse part of 2 mm (dB)": group["psnr_db"].mean(),
            "Lost (dB)": group["lost_db"].mean(),
            **spread(group["lost_db"], " (dB)"),
        }
        for arm, group in lost[lost["latent"] == names.COARSE_OF_2_MM].groupby("arm")
    )


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem."""
    return {
        NAME: consistency_table(frame).drop(columns=["Bar", "Within"]),  # for maintainers
        f"{NAME}_information": information_table(frame),
        f"{NAME}_header": header_table(frame),
        f"{NAME}_db": coarse_table(frame),
    }
