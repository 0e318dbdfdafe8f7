"""From recorded rows to distances in units of those between heads, and their tables."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from eval.latent_consistency import conditions as names
from eval.latent_consistency.conditions import ANOTHER, EXPERIMENT, SAME, SMOOTHER, WHOLE
from eval.rows import latest
from eval.stats import compare
from medil.errors import InputError

ARMS = {"medil": "MedIL", "medil_splines": "Splines alone"}
QUESTIONS = {
    SAME: "same content, another grid",
    SMOOTHER: "same smoother content, another grid",
    WHOLE: "another resolution",
}
CONTROLS = (ANOTHER, names.TRANSPORTED, names.SHIFTED_CELLS)  # no bar is set for them
GRID_BAR, RESOLUTION_BAR = 0.05, 0.15
JUDGED_RESOLUTIONS = ("2 mm", "2 mm, aligned")
HEADERS: dict[str, tuple[Callable[[float], str], tuple[float, ...], str]] = {
    "header off": (names.off, names.HEADER_MM, "mm"),
    "header turned": (names.turned_by, names.HEADER_DEG, "degrees"),
    "truly scanned there": (names.truly, names.HEADER_MM[1:], "mm"),
    "head moved": (names.moved, names.HEADER_MM[1:], "mm"),
}
CONDITION = r"^(?P<content>.*) -> (?P<scanned>.*) \| (?P<channels>.*)$"
SPREAD = ["Mean", "Low", "High", "n"]


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the newest weights only, each arm and cohort in its newest configuration.

    Raises:
        InputError: The experiment has no rows, or none on the distance between heads.
    """
    frame = frame[frame["experiment"] == EXPERIMENT].sort_values("recorded_at", kind="stable")
    if not frame.empty:
        frame = frame[frame["weights_sha256"] == frame["weights_sha256"].iloc[-1]]
        between = frame["condition"].str.contains(f"-> {ANOTHER}", regex=False)
        last = frame.groupby(["arm", between])["config_hash"].transform("last")
        frame = latest(frame[frame["config_hash"] == last])
    between = frame["condition"].str.contains(f"-> {ANOTHER}", regex=False)
    if not (between & (frame["metric"] == "latent_rms")).any():
        raise InputError(
            "there are no rows on latent consistency; run: python -m eval.latent_consistency"
        )
    return frame


def distances(frame: pd.DataFrame) -> pd.DataFrame:
    """Latents that were compared, one line a head, arm, content, scan and kind of channels.

    Args:
        frame: From `newest`.

    Returns:
        subject, arm, content, scanned, channels; `latent_l2` and `latent_cosine`; and
        `distance`: `latent_rms` over its mean between heads, for the same arm, content and
        channels.
    """
    frame = frame[frame["metric"].isin(names.DIFFERENCES)]
    parts = frame["condition"].str.extract(
        r"^(?P<content>.*) -> (?P<scanned>.*) \| (?P<channels>.*)$"
    )
    keys = ["arm", "content", "scanned", "channels", "subject"]
    frame = frame.join(parts)
    order = frame[keys].drop_duplicates()
    wide = frame.pivot(index=keys, columns="metric", values="value")
    wide = wide.reindex(pd.MultiIndex.from_frame(order)).reset_index()
    apart = wide[wide["scanned"] == ANOTHER].groupby(["arm", "content", "channels"])
    unit = apart["latent_rms"].mean().rename("unit").reset_index()
    wide = wide.merge(unit, on=["arm", "content", "channels"])
    return wide.assign(distance=wide["latent_rms"] / wide["unit"])


def spread(values: pd.Series) -> dict[str, float]:
    """Mean over heads with its 95 % interval, and n."""
    found = compare(values.to_numpy()[:, None])
    return dict(zip(SPREAD, (found.mean, found.low, found.high, found.n_subjects), strict=True))


def consistency_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line a condition, kind of channels and arm: mean distance over heads, and more.

    Args:
        frame: Recorded rows; others than this experiment's are left out.

    Returns:
        Question, condition, channels, arm, mean distance as a fraction of that between
        heads, its 95 % interval over heads, relative L2, cosine, n heads, the bar where one
        is set, and whether the mean is within it.
    """
    found = distances(newest(frame))
    found = found[~found["scanned"].str.startswith(("head", "truly"))]  # have a table of their own
    lines = []
    for key, group in found.groupby(["content", "scanned", "channels", "arm"], sort=False):
        content, scanned, channels, arm = key
        about = spread(group["distance"])
        lines.append(
            {
                "Question": QUESTIONS[content],
                "Scanned": scanned,
                "Channels": channels,
                "Arm": ARMS.get(arm, arm),
                "Distance": about["Mean"],
                "Low": about["Low"],
                "High": about["High"],
                "L2": group["latent_l2"].mean(),
                "Cosine": group["latent_cosine"].mean(),
                "n": about["n"],
                "Bar": bar(content, scanned, channels),
            }
        )
    table = pd.DataFrame(lines)
    table["Within"] = [
        "" if pd.isna(b) else "yes" if d <= b else "no"
        for d, b in zip(table["Distance"], table["Bar"], strict=True)
    ]
    first = [*QUESTIONS.values(), ANOTHER, *names.PLACES, *names.FINE, *CONTROLS, names.TURNED]
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
    """The largest distance that was asked for; NaN where none was."""
    if content == SAME and channels == "all" and scanned not in CONTROLS:
        return GRID_BAR
    if content == WHOLE and channels == "coarse" and scanned in JUDGED_RESOLUTIONS:
        return RESOLUTION_BAR
    return float("nan")


def information_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Grid by grid: what the grid alone costs, what the resolution costs, and the difference.

    Heads count that were scanned both ways.

    Returns:
        Scan, channels, arm, mean distance of a content that both grids hold, mean distance of
        the whole content, their mean difference with its 95 % interval over heads, and n.
    """
    found = distances(newest(frame))
    found = found[found["scanned"].isin(names.PLACES) & found["content"].isin([SMOOTHER, WHOLE])]
    index = ["scanned", "channels", "arm", "subject"]
    wide = found.pivot(index=index, columns="content", values="distance").dropna()
    lines = []
    for (scanned, channels, arm), group in wide.groupby(["scanned", "channels", "arm"]):
        about = spread(group[WHOLE] - group[SMOOTHER])
        lines.append(
            {
                "Scanned": scanned,
                "Channels": channels,
                "Arm": ARMS.get(arm, arm),
                "Grid alone": group[SMOOTHER].mean(),
                "With resolution": group[WHOLE].mean(),
                "Difference": about["Mean"],
                "Low": about["Low"],
                "High": about["High"],
                "n": about["n"],
            }
        )
    return in_order(pd.DataFrame(lines), ["Channels", "Arm", "Scanned"], list(names.PLACES))


def header_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What a wrong header does, and, as a control, a head that truly moved.

    Returns:
        Kind (a key of `HEADERS`), by how much and in which unit, arm; mean distance over all
        channels with its 95 % interval over heads and cosine; decibels lost by the rendering
        on the true voxels, against the latent under the true header (brought back where the
        other was), with their interval; and n.
    """
    frame = newest(frame)
    found = distances(frame)
    found = found[(found["content"] == WHOLE) & (found["channels"] == "all")]
    lost = lost_db(frame)
    lines = []
    for kind, (name, amounts, unit) in HEADERS.items():
        for amount in amounts:
            for arm, group in found[found["scanned"] == name(amount)].groupby("arm"):
                about = spread(group["distance"])
                db = lost[(lost["arm"] == arm) & (lost["latent"] == name(amount))]["lost_db"]
                line = {"Kind": kind, "By": amount, "Unit": unit, "Arm": ARMS.get(arm, arm)}
                line |= {"Distance": about["Mean"], "Low": about["Low"], "High": about["High"]}
                line["Cosine"] = group["latent_cosine"].mean()
                told = spread(db) if len(db) else dict.fromkeys(SPREAD[:3], float("nan"))
                line |= {f"{k} (dB)": told[s] for k, s in zip(DB, SPREAD, strict=False)}
                lines.append(line | {"n": about["n"]})
    columns = ["Kind", "By", "Unit", "Arm", "Distance", "Low", "High", "Cosine"]
    columns += [*(f"{k} (dB)" for k in DB), "n"]
    return pd.DataFrame(lines, columns=columns)


DB = ("Lost", "Low", "High")


def lost_db(frame: pd.DataFrame) -> pd.DataFrame:
    """What each rendered latent loses at 1 mm against the head's own: head by head, in dB.

    Args:
        frame: From `newest`.

    Returns:
        arm, subject, latent, `own_db`, `psnr_db` and `lost_db`. Latents that were brought back are
        set against the one that went there and back under the true header.
    """
    frame = frame[frame["metric"] == "psnr"]
    wide = frame.pivot(index=["arm", "subject"], columns="condition", values="value")
    lines = []
    for (arm, subject), found in wide.iterrows():
        for condition, db in found.dropna().items():
            latent = condition.removeprefix(WHOLE).removesuffix(" -> 1 mm").removeprefix(", ")
            went_away = "turned" in latent  # to cells of its own, and back
            own = found[names.rendered(names.TRANSPORTED if went_away else "")]
            lines.append((arm, subject, latent or names.off(0.0), own, db, own - db))
    columns = ["arm", "subject", "latent", "own_db", "psnr_db", "lost_db"]
    return pd.DataFrame(lines, columns=columns)


def coarse_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What it costs to take the latent's coarse part from a 2 mm scan: dB at 1 mm, one line an arm.

    Returns:
        Arm, mean PSNR with its own latent and with the 2 mm scan's coarse part, the mean
        difference with its 95 % interval over heads, and n heads.
    """
    lost = lost_db(newest(frame))
    lines = []
    for arm, group in lost[lost["latent"] == names.COARSE_OF_2_MM].groupby("arm", sort=True):
        about = spread(group["lost_db"])
        lines.append(
            {
                "Arm": ARMS.get(arm, arm),
                "Own latent (dB)": group["own_db"].mean(),
                "Coarse part of 2 mm (dB)": group["psnr_db"].mean(),
                "Lost (dB)": about["Mean"],
                "Low (dB)": about["Low"],
                "High (dB)": about["High"],
                "n": about["n"],
            }
        )
    return pd.DataFrame(lines)
