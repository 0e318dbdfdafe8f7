"""Shared by all tables: formats of numbers, names and provenance, and writing files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from eval.stats import compare
from medil.model.weights import short_digest
from medil.system.files import atomic_output

MOST_DIGESTS = 12  # that a sentence lists


def provenance(frame: pd.DataFrame) -> str:
    """One sentence: when, at which commit, on what and with which weights rows were recorded."""
    commits = frame["commit"].str[:7] + frame["dirty"].map({True: "+", False: ""})
    days = frame["recorded_at"].dt.strftime("%Y-%m-%d")
    weights = frame.loc[frame["weights_sha256"] != "", "weights_sha256"].map(short_digest)
    return (
        f"Recorded {joined(days)} at commit {joined(commits)} (device {joined(frame['device'])}, "
        f"threads {joined(frame['threads'])}, profile {joined(frame['profile'])}, weights "
        f"{_few(weights) or 'none'}): {len(frame):,} rows, each of one volume."
    )


def _few(digests: pd.Series) -> str:
    """The digests that differ, or how many there are where that would be a list of many."""
    n = digests.nunique()
    return joined(digests) if n <= MOST_DIGESTS else f"of {n} models"


def joined(values: Iterable[object]) -> str:
    """What differs among values, sorted, with commas; empty texts do not count."""
    return ", ".join(sorted({str(value) for value in values} - {""}))


def scan_name(subject: str) -> str:
    """A subject's name for people, without its prefix and with spaces.

    Example:
        >>> scan_name("cross_sectional_patient07_T1_MNI")
        'patient07 T1 MNI'
        >>> scan_name("made_00_from_map_17")
        'synthetic head 00, map 17'
    """
    for prefix in ("cross_sectional_", "longitudinal_"):
        subject = subject.removeprefix(prefix)
    subject = re.sub(r"^made_(\d+)_from_map_(\d+)", r"synthetic head \1, map \2", subject)
    return subject.replace("_", " ")


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, for pages: its intervals and voxel sizes stay whole."""
    return unbroken(piped(table))


def piped(table: pd.DataFrame) -> str:
    """A table as Markdown, for files: text to the left, numbers to the right.

    Fractions get two decimals in columns whose header names dB, three in others.
    """

    def text(name: str, value) -> str:
        return decimals(value, 2 if "dB" in name else 3) if isinstance(value, float) else str(value)

    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in table]
    lines = [[str(name) for name in table], ["---:" if n else ":---" for n in numeric]]
    lines += [
        [text(str(name), value) for name, value in zip(table, line, strict=True)]
        for line in table.itertuples(index=False)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def unbroken(text: str) -> str:
    """Cells whose intervals, voxel sizes and units are not torn apart at the end of a line.

    Example:
        >>> unbroken("0.2 [0.1, 0.3] at 1 x 3 mm -> 1 mm").replace(chr(160), "_")
        '0.2 [0.1,_0.3] at 1_×_3_mm → 1_mm'
    """
    text = re.sub(r"(?<=\S) -> (?=\S)", " → ", text)
    text = re.sub(r"(?<=\d) [x×] (?=\d)", "\u00a0×\u00a0", text)
    text = re.sub(r"(?<=\d) / (?=\d)", " /\u00a0", text)
    text = re.sub(r"(?<=\d) (?=(?:mm|mm³|ml|dB|HU|MB|GB|ms|%)(?!\w))", "\u00a0", text)
    return re.sub(r"\[[^][()]*\d[^][()]*\](?!\()", lambda m: m[0].replace(" ", "\u00a0"), text)


def plain(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def three_digits(value: float) -> str:
    """Three digits, in a form that people read: 1,234, 12.3, 0.04 or 3e-07."""
    if pd.isna(value):
        return "not finite"
    if value and abs(value) < 1e-2:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def aligned(table: pd.DataFrame) -> str:
    """A table of texts in columns, for a terminal."""
    widths = [max(map(len, [name, *table[name]])) for name in table]

    def line(cells) -> str:
        return "  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip()

    lines = [line(table.columns), line("-" * w for w in widths)]
    return "\n".join([*lines, *(line(cells) for cells in table.itertuples(index=False))])


def decimals(value: float | None, n: int) -> str:
    return "" if pd.isna(value) else f"{value:z.{n}f}"  # z: no "-0.00"


def with_sign(value: float, n: int = 2) -> str:
    return "" if pd.isna(value) else f"{round(value, n) + 0.0:+.{n}f}"  # no "-0.00"


def with_interval(mean: float, low: float, high: float, n: int = 2, sign: bool = False) -> str:
    """A mean and its interval.

    Example:
        >>> with_interval(0.25, -0.031, 0.5)
        '0.25 [-0.03, 0.50]'
    """
    text = with_sign if sign else decimals
    return f"{text(mean, n)} [{text(low, n)}, {text(high, n)}]"


def intervals_in(sentence: str) -> int:
    """How many intervals a reader meets in a sentence.

    Example:
        >>> intervals_in("it gains +0.2 [+0.1, +0.3] dB, and 3 ml [1, 5]")
        2
    """
    return len(re.findall(r"\[[^\[\]]*\d[^\[\]]*[,;] [^\[\]]*\d[^\[\]]*\]", sentence))


def short(lines: Sequence[str], most: int = 3, most_intervals: int = 2) -> list[str]:
    """The first lines of a verdict that can be read at once: few intervals a sentence."""

    def plain_words(line: str) -> bool:
        return all(intervals_in(s) <= most_intervals for s in line.split(". "))

    return [line for line in lines if line.strip() and plain_words(line)][:most]


def listed(lines: Iterable[str]) -> str:
    """Lines as a Markdown list."""
    return "\n".join(f"- {line.removeprefix('- ')}" for line in lines)


def folded(title: str, text: str) -> str:
    """Markdown behind a title that opens it."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def times(spacing: str) -> str:
    return spacing.replace(" x ", " × ")


def signed_db(difference_db: float) -> str:
    return f"{abs(difference_db):.2f} dB {'above' if difference_db >= 0 else 'below'}"


def few_heads(n: int) -> str:
    """A warning about intervals over less than five heads, to end a sentence; else empty."""
    return " With so few heads the interval is little more than their range." if n < 5 else ""


def means(frame: pd.DataFrame, keys: list[str], sort: bool = False) -> pd.DataFrame:
    """Mean over subjects with its 95 % interval, one line per group; NaN values do not count.

    The columns are the keys, `mean`, `low`, `high`, `unit` and `n` subjects. Groups keep the order
    of the rows unless `sort` is true.
    """
    lines = []
    for key, group in frame.dropna(subset="value").groupby(keys, sort=sort):
        pair = compare(group["value"].to_numpy()[:, None])
        lines.append((*key, pair.mean, pair.low, pair.high, group["unit"].iloc[0], pair.n_subjects))
    return pd.DataFrame(lines, columns=[*keys, "mean", "low", "high", "unit", "n"])


def write(contents: Mapping[str, str], out: Path) -> list[Path]:
    """Write texts (file name to text) into a folder, each whole or not at all; the files."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        with atomic_output(out / name, force=True) as temporary:
            temporary.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
    return [out / name for name in contents]
