"""Which rows a number in a sentence rests on, noted while the sentence is made.

`cited` gives its text back unchanged, so sentences stay plain text. Whoever wants to know listens
(`notes`) and marks the numbers afterwards (`marked`): in the book, a click on one shows its rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from html import escape

import pandas as pd

from eval.tables import joined
from medil.model.weights import short_digest


@dataclass(frozen=True)
class Note:
    """A number as it is printed, and the rows behind it."""

    text: str
    metrics: tuple[str, ...]
    conditions: tuple[str, ...]
    arms: tuple[str, ...]
    n_subjects: int
    n_rows: int
    recorded: str  # days
    commit: str
    device: str
    weights: str


_LISTENERS: ContextVar[tuple[pd.DataFrame, list[Note]] | None] = ContextVar("notes", default=None)


@contextmanager
def notes(frame: pd.DataFrame) -> Iterator[list[Note]]:
    """What is cited of prepared rows within the block, in order."""
    found: list[Note] = []
    token = _LISTENERS.set((frame, found))
    try:
        yield found
    finally:
        _LISTENERS.reset(token)


def cited(text: str, **fields: object) -> str:
    """`text`, unchanged; it is noted that it rests on the rows whose fields have these values.

    Args:
        text: A number as it is printed, with its interval.
        fields: A column of the prepared rows each, with its value or a list of values.
    """
    listener = _LISTENERS.get()
    if listener is not None:
        frame, found = listener
        for name, value in fields.items():
            values = value if isinstance(value, list | tuple) else [value]
            frame = frame[frame[name].isin(values)]
        if len(frame):
            found.append(_note(text, frame))
    return text


def _note(text: str, rows: pd.DataFrame) -> Note:
    metrics, conditions, arms = (
        tuple(dict.fromkeys(rows[name])) for name in ("metric", "condition", "arm")
    )
    weights = rows.loc[rows["weights_sha256"] != "", "weights_sha256"].map(short_digest)
    return Note(
        text, metrics, conditions, arms, rows["subject"].nunique(), len(rows),
        joined(rows["recorded_at"].dt.strftime("%Y-%m-%d")),
        joined(rows["commit"].str[:7] + rows["dirty"].map({True: "+", False: ""})),
        joined(rows["device"]), joined(weights),
    )  # fmt: skip


def found_in(lines: Iterable[str], noted: Sequence[Note]) -> list[list[tuple[int, Note]]]:
    """For each line, where a noted number stands, each note once and in order."""
    left, places = list(noted), []
    for line in lines:
        here, at = [], 0
        while place := _next(line, at, left):
            start, note = place
            here.append(place)
            left.remove(note)
            at = start + len(note.text)
        places.append(here)
    return places


def plain(text: str) -> str:
    """Text without the marks of `marked`.

    Example:
        >>> plain('a gain of <span data-rows="{}">1.5</span> dB')
        'a gain of 1.5 dB'
    """
    return re.sub(r'<span data-rows="[^"]*">(.*?)</span>', r"\1", text)


def _next(line: str, at: int, left: Sequence[Note]) -> tuple[int, Note] | None:
    """The first noted number from a place on; of equal numbers, the one noted first."""
    found = []
    for number, note in enumerate(left):
        whole = re.compile(rf"(?<![\d.]){re.escape(note.text)}(?![\d]|\.\d)")
        if place := whole.search(line, at):
            found.append((place.start(), -len(note.text), number))
    return (min(found)[0], left[min(found)[2]]) if found else None


def marked(lines: Sequence[str], noted: Sequence[Note], about: Mapping[str, str]) -> list[str]:
    """Lines whose noted numbers are spans that name their rows: HTML within Markdown.

    Args:
        lines: Sentences.
        noted: Of `notes`.
        about: What is true of all of them: the experiment, and the command that records it.
    """
    done = []
    for line, places in zip(lines, found_in(lines, noted), strict=True):
        for start, note in reversed(places):
            data = json.dumps({**about, **asdict(note)}, ensure_ascii=False)
            end = start + len(note.text)
            span = f'<span data-rows="{escape(data)}">{note.text}</span>'
            line = line[:start] + span + line[end:]
        done.append(line)
    return done
