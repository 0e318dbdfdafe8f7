"""From recorded rows to the table and the sentences on latent consistency; measures nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from eval.rows import latest, read_rows
from eval.stats import bootstrap_interval
from medil.errors import InputError
from medil.files import atomic_output

EXPERIMENT = "latent_consistency"
SAME, WHOLE = "1 mm band-limited", "1 mm"  # what is scanned, first word of a condition
ANOTHER = "another head"
TURNED = "turned 12 degrees"
SHIFTED_CELLS = "latent cells shifted"
TRANSPORTED = "brought back to its own cells"
OWN = "1 mm -> 1 mm"
COARSE_OF_2_MM = "1 mm, coarse part of 2 mm -> 1 mm"
QUESTIONS = {SAME: "same content, another grid", WHOLE: "another resolution"}
CONTROLS = (ANOTHER, TRANSPORTED, SHIFTED_CELLS)  # no bar is set for them
GRID_BAR, RESOLUTION_BAR, LOST_BAR_DB = 0.05, 0.15, 0.3
JUDGED_RESOLUTIONS = ("2 mm", "2 mm, aligned")
ARMS = {"medil": "MedIL", "medil_splines": "Splines alone"}


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the newest weights only, each arm in its newest configuration.

    Raises:
        InputError: The experiment has no rows.
    """
    frame = frame[frame["experiment"] == EXPERIMENT].sort_values("recorded_at", kind="stable")
    if frame.empty:
        raise InputError("there are no rows on latent consistency; run: python -m eval.consistency")
    frame = frame[frame["weights_sha256"] == frame["weights_sha256"].iloc[-1]]
    last = frame.groupby("arm")["config_hash"].transform("last")  # says who was measured with whom
    return latest(frame[frame["config_hash"] == last])


def consistency_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line a condition, kind of channels and arm: the distance's mean over heads, and more.

    Args:
        frame: Recorded rows; others than this experiment's are left out.

    Returns:
        Question, condition, channels, arm, mean distance as a fraction of that between
        heads, its 95 % bootstrap interval over heads, the mean centred cosine, n heads, the
        bar where one is set, and whether the mean is within it.
    """
    frame = newest(frame)
    frame = frame[frame["metric"].isin(["latent_distance", "latent_cosine"])]
    lines = []
    for (condition, arm), group in frame.groupby(["condition", "arm"], sort=False):
        path, channels = condition.split(" | ")
        content, scanned = path.split(" -> ")
        values = group[group["metric"] == "latent_distance"]["value"]
        low, high = interval(values)
        lines.append(
            {
                "Question": QUESTIONS[content],
                "Scanned": scanned,
                "Channels": channels,
                "Arm": ARMS.get(arm, arm),
                "Distance": values.mean(),
                "Low": low,
                "High": high,
                "Cosine": group[group["metric"] == "latent_cosine"]["value"].mean(),
                "n": len(values),
                "Bar": bar(content, scanned, channels),
            }
        )
    table = pd.DataFrame(lines)
    table["Within"] = [
        "" if pd.isna(b) else "yes" if d <= b else "no"
        for d, b in zip(table["Distance"], table["Bar"], strict=True)
    ]
    order = ["Question", "Channels", "Arm"]
    return table.sort_values(order, ascending=[False, True, True], kind="stable", ignore_index=True)


def bar(content: str, scanned: str, channels: str) -> float:
    """The largest distance that was asked for; NaN where none was."""
    if content == SAME and channels == "all" and scanned not in CONTROLS:
        return GRID_BAR
    if content == WHOLE and channels == "coarse" and scanned in JUDGED_RESOLUTIONS:
        return RESOLUTION_BAR
    return float("nan")


def lost_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What it costs to take the latent's coarse part from a 2 mm scan: dB at 1 mm, one line an arm.

    Returns:
        Arm, mean PSNR with its own latent and with the 2 mm scan's coarse part, the mean
        difference with its 95 % bootstrap interval over heads, and n heads.
    """
    frame = newest(frame)
    wide = frame[frame["metric"] == "psnr"].pivot(
        index=["arm", "subject"], columns="condition", values="value"
    )
    lines = []
    for arm, group in wide.groupby("arm", sort=True):
        lost = group[OWN] - group[COARSE_OF_2_MM]
        low, high = interval(lost)
        lines.append(
            {
                "Arm": ARMS.get(arm, arm),
                "Own latent (dB)": group[OWN].mean(),
                "Coarse part of 2 mm (dB)": group[COARSE_OF_2_MM].mean(),
                "Lost (dB)": lost.mean(),
                "Low (dB)": low,
                "High (dB)": high,
                "n": len(lost),
            }
        )
    return pd.DataFrame(lines)


def interval(values: pd.Series) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over heads."""
    return bootstrap_interval(values.to_numpy()[:, None])


def verdict(frame: pd.DataFrame) -> str:
    """Both answers and the dB lost, each against its bar, in a few sentences."""
    table = consistency_table(frame)
    model = table[table["Arm"] == ARMS["medil"]].set_index(["Question", "Channels", "Scanned"])
    sentences = [f"Distances between latents, as fractions of those between n = {model['n'].max()} "
                 "held-out heads [95 % interval over heads]."]  # fmt: skip
    judged = model[model["Bar"].notna()]
    for question, channels in (("same content, another grid", "all channels"),
                               ("another resolution", "coarse channel")):  # fmt: skip
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
    for control in CONTROLS[1:]:
        key = (QUESTIONS[SAME], "all", control)
        if key in model.index:
            sentences.append(f"For comparison, {control}: {_told(model.loc[key])}.")
    lost = lost_table(frame)
    for line in lost[lost["Arm"] == ARMS["medil"]].itertuples(index=False):
        db, low, high = line[3:6]
        sentences.append(
            f"Taking the coarse channel from a 2 mm scan costs {db:.2f} dB [{low:.2f}, "
            f"{high:.2f}] at 1 mm: the bar of {LOST_BAR_DB} dB is "
            f"{'met' if db <= LOST_BAR_DB else 'missed'}."
        )
    return "\n".join(sentences)


def _told(line: pd.Series) -> str:
    return f"{line['Distance']:.3f} [{line['Low']:.3f}, {line['High']:.3f}]"


def tables(rows_folder: Path, out: Path) -> list[Path]:
    """Write ``latent_consistency.csv``, ``latent_consistency_db.csv`` and the verdict.

    Args:
        rows_folder: Holds ``latent_consistency.jsonl``.
        out: Folder of the tables; made with its parents.

    Returns:
        What was written; nothing where there are no rows yet.
    """
    path = Path(rows_folder) / f"{EXPERIMENT}.jsonl"
    if not path.is_file():
        return []
    frame = read_rows(path)
    texts = {
        f"{EXPERIMENT}.csv": consistency_table(frame).to_csv(index=False, float_format="%.4f"),
        f"{EXPERIMENT}_db.csv": lost_table(frame).to_csv(index=False, float_format="%.3f"),
        f"{EXPERIMENT}.txt": verdict(frame) + "\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with atomic_output(out / name, force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [out / name for name in texts]
