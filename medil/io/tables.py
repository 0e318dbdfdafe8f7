"""Tables of text (CSV, TSV), read strictly: what is damaged is refused with its line.

A separator is found in the first line and holds for all. Nothing is repaired or guessed.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from medil.errors import InputError, of_system, shown

SUFFIXES = (".csv", ".tsv")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
MOST_BYTES = 2**26  # a table of scans has fewer


class Row(NamedTuple):
    """The cells of one line, by the names of the columns; stripped."""

    line: int  # in the file, from 1
    cells: dict[str, str]


def is_table(path: Path) -> bool:
    """Whether a name ends as that of a table."""
    return path.suffix.lower() in SUFFIXES


def read_table(table: Path, needed: str) -> list[Row]:
    """The rows of a table in UTF-8, or in UTF-16 with a byte order mark.

    Commas, semicolons or tabs separate cells, which may stand in double quotes. Names of columns
    are in lower case; lines without text are left out.

    Args:
        table: The file.
        needed: A column without which the table is of no use.

    Raises:
        InputError: What is wrong with the table, and in which line.
    """
    lines = _records(table, _text(table))
    number, names = next(lines, (0, []))
    names = [name.lower() for name in names]
    while names and not names[-1]:  # as spreadsheets write beside a table
        names.pop()
    if needed not in names:
        raise InputError(f"{table} has no column called {needed!r}.")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{table}, line {number} has two columns called {shown(repeated[0])}.")
    rows = []
    for number, cells in lines:
        if len(cells) < len(names) or any(cells[len(names) :]):
            raise InputError(
                f"{table}, line {number} has {len(cells)} cells, and the first line {len(names)}."
            )
        rows.append(Row(number, dict(zip(names, cells, strict=False))))
    return rows


def _text(table: Path) -> str:
    try:
        if table.stat().st_size > MOST_BYTES:
            raise InputError(f"{table} is too large for a table of scans.")
        content = table.read_bytes()
    except OSError as error:
        raise InputError(of_system(error)) from error
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if is_wide:
            raise InputError(f"{table} is damaged: it begins as UTF-16 and does not go on.") from (
                error
            )
        number = content[: error.start].count(b"\n") + 1
        raise InputError(f"{table}, line {number} is not UTF-8; save it as UTF-8.") from error
    if "\0" in text:
        number = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{table}, line {number} holds zero bytes; save the table as UTF-8.")
    return text


def _records(table: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that holds text."""
    lines = io.StringIO(text, newline=None).read().split("\n")
    separator = None
    for number, line in enumerate(lines, 1):
        if not line.strip(" ,;\t"):
            continue
        if separator is None:
            separator = _separator(table, number, line)
        try:
            (cells,) = csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True)
        except csv.Error as error:
            raise InputError(
                f"{table}, line {number} has a quote that is not closed, or text beside quotes."
            ) from error
        yield number, [cell.strip() for cell in cells]


def _separator(table: Path, number: int, line: str) -> str:
    """The one separator outside of quotes; a comma in a table of one column."""
    outside = "".join(line.split('"')[::2])
    if table.suffix.lower() == ".tsv" and "\t" in outside:
        return "\t"
    used = [separator for separator in SEPARATORS if separator in outside]
    if len(used) > 1:
        names = " and ".join(SEPARATORS[separator] for separator in used)
        raise InputError(f"{table}, line {number} holds {names}; separate columns by one of them.")
    return used[0] if used else ","
