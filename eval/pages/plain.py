"""A notebook as it is downloaded: plain Markdown that any program shows, in place of MyST.

The book's pages use links without a text, roles and directives, which Jupyter and Colab print as
they are. `plain` writes out what they stand for. It takes the stored notebook and, of the executed
one, the values that prose quotes, so a download holds no outputs and no parameters of a run.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FENCE = re.compile(r"^(`{3,}|:{3,})(?:\{([\w-]+)\})?[ ]*(.*)$")
OPTION = re.compile(r"^:([\w-]+):[ ]*(.*)$")
ROLE = re.compile(r"\{([\w:-]+)\}`([^`]+)`")
EQUATION = re.compile(r"\$\$[ ]*\(([\w-]+)\)[ ]*$", re.M)
TARGET = re.compile(r"^\([\w-]+\)=\n", re.M)
EMPTY_LINK = re.compile(r"\[\]\(([^)#]*)(?:#[^)]*)?\)")
CITED = re.compile(r"<span data-rows=\"[^\"]*\">(.*?)</span>", re.S)  # of `eval.cited`
NOT_RUN = "…"  # stands for a value of a page that was not executed


@dataclass(frozen=True)
class Words:
    """What the markup of all pages stands for."""

    titles: Mapping[str, str]  # of a page, by its stem
    sources: Mapping[str, str]  # ``Lee and Jin, 2022``, by the key of the bibliography
    tables: Path  # folder of the files that pages include
    values: Mapping[str, Any] = field(default_factory=dict)  # that prose quotes, by name
    numbers: Mapping[str, str] = field(default_factory=dict)  # ``Figure 2``, by label


def plain(notebook: Mapping[str, Any], words: Words) -> dict[str, Any]:
    """The notebook in plain Markdown, with a caption below each cell that draws."""
    known = Words(words.titles, words.sources, words.tables, words.values, labels(notebook))
    cells = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell = cell | {"source": text("".join(cell["source"]), known).splitlines(True)}
        cells += [cell, *_caption(cell, known)]
    return {**notebook, "cells": cells}


def leftovers(notebook: Mapping[str, Any]) -> list[str]:
    """Markup in Markdown cells that a program for notebooks would print as it is."""
    prose = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] != "code")
    left = r"\{[\w:-]+\}`|\[\]\([^)]*\)|^(?:`{3,}|:{3,})\{|^\([\w-]+\)=$|^:{3,}[ ]*$"
    return re.findall(left, prose, re.M)


def text(markdown: str, words: Words) -> str:
    """A piece of MyST in plain Markdown."""
    out, lines = [], markdown.splitlines()
    while lines:
        line = lines.pop(0)
        opened = FENCE.match(line)
        if not opened:
            out.append(line)
            continue
        end = lines.index(opened[1]) if opened[1] in lines else len(lines)
        body, lines = lines[:end], lines[end + 1 :]
        if opened[2]:
            out.append(_directive(opened[2], opened[3], body, words))
        else:
            out += [line, *body, opened[1]]
    return _inline("\n".join(out), words)


def _inline(markdown: str, words: Words) -> str:
    def link(match: re.Match) -> str:
        path = Path(match[1])
        title = words.titles.get(path.stem, path.stem)
        return f"[{title}]({path.name})" if path.suffix == ".ipynb" else f"*{title}*"

    def equation(match: re.Match) -> str:
        return rf"\tag{{{words.numbers[match[1]].split()[-1]}}}" + "\n$$"

    markdown = CITED.sub(r"\1", TARGET.sub("", markdown))
    markdown = re.sub(r"\n?" + EQUATION.pattern, equation, markdown, flags=re.M)
    markdown = ROLE.sub(lambda match: _role(match[1], match[2], words), markdown)
    return EMPTY_LINK.sub(link, markdown)


def _role(name: str, content: str, words: Words) -> str:
    shown, _, target = content.removesuffix(">").rpartition(" <")
    if name.startswith("glue"):
        key, _, form = content.partition(":")
        return format(words.values[key], form) if key in words.values else NOT_RUN
    if name.startswith("cite"):
        sources = [words.sources[key.strip()] for key in content.split(",")]
        return sources[0] if name == "cite:t" else f"({'; '.join(sources)})"
    if name in ("numref", "eq"):
        number = words.numbers.get(target if shown else content, "the figure")
        return f"({number.split()[-1]})" if name == "eq" else number
    if name.startswith("py:"):
        return f"`{shown or content.lstrip('~!')}`"
    return shown or content


def _directive(name: str, argument: str, body: list[str], words: Words) -> str:
    options: dict[str, str] = {}
    while body and (option := OPTION.match(body[0])):
        options[option[1]] = option[2]
        body = body[1:]
    inside = "\n".join(body).strip("\n")
    if name == "dropdown" or "dropdown" in options.get("class", ""):
        return f"<details><summary>{argument}</summary>\n\n{text(inside, words)}\n\n</details>"
    file = words.tables / Path(options.get("file", argument)).name
    if name == "csv-table" and file.is_file():
        return _table(file, argument)
    if name == "include" and file.is_file():
        return text(file.read_text("utf-8"), words)
    if name == "admonition":
        quoted = f"**{argument}**\n\n{text(inside, words)}"
        return "\n".join(f"> {line}".rstrip() for line in quoted.splitlines())
    what = options.get("alt", argument).strip(".")
    return f"*(Here the book has {'a live picture' if name == 'raw' else what}.)*"


def _table(path: Path, caption: str) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = [[c.replace("|", r"\|") for c in row] for row in csv.reader(file)]
    lines = [head, ["---"] * len(head), *rows]
    return f"{caption}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _caption(cell: Mapping[str, Any], words: Words) -> list[dict[str, Any]]:
    figure = cell["metadata"].get("mystnb", {}).get("figure", {})
    if not figure.get("caption"):
        return []
    number = words.numbers.get(figure.get("name", ""), "Figure")
    source = f"*{number}.* {_inline(figure['caption'], words)}"
    named = {"id": f"caption-of-{cell['id'][:50]}", "cell_type": "markdown", "metadata": {}}
    return [named | {"source": [source]}]


def labels(notebook: Mapping[str, Any]) -> dict[str, str]:
    """Figures and equations of one notebook, numbered in their order, by their labels."""
    figures, equations = [], []
    for cell in notebook["cells"]:
        figures.append(cell["metadata"].get("mystnb", {}).get("figure", {}).get("name", ""))
        if cell["cell_type"] == "markdown":
            equations += EQUATION.findall("".join(cell["source"]))
    numbered = {name: f"Figure {k}" for k, name in enumerate(filter(None, figures), start=1)}
    return numbered | {name: f"Equation {k}" for k, name in enumerate(equations, start=1)}


# What the markup stands for, read from the book


def words_of(root: Path, tables: Path) -> Words:
    """The titles of all pages and the sources of the bibliography of a checkout."""
    return Words(_titles(root), _sources(root / "book/references.bib"), tables)


def _titles(root: Path) -> dict[str, str]:
    pages: dict[Path, Callable[[str], str]] = {
        **{path: str for path in (*root.glob("book/*.md"), *root.glob("*.md"))},
        **{path: _first_cell for path in root.glob("notebooks/*.ipynb")},
    }
    found = {}
    for path, read in pages.items():
        heading = re.search(r"^# (.+)$", read(path.read_text("utf-8")), re.M)
        found[path.stem] = heading[1] if heading else path.stem
    return found


def _first_cell(notebook: str) -> str:
    return "".join(json.loads(notebook)["cells"][0]["source"])


def _sources(path: Path) -> dict[str, str]:
    from pybtex.database import parse_file

    found = {}
    for key, entry in parse_file(str(path)).entries.items():
        names = [" ".join(p.last_names) for p in entry.persons.get("author", [])]
        several = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        found[key] = re.sub(r"[{}]", "", f"{several}, {entry.fields.get('year', 'n.d.')}")
    return found


def quoted(executed: Mapping[str, Any]) -> dict[str, Any]:
    """The values that an executed notebook glued into its prose, by name."""
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    return {
        name: _number("".join(next(iter(output["data"].values()))))
        for output in outputs
        if (name := output.get("metadata", {}).get("scrapbook", {}).get("name"))
    }


def _number(printed: str) -> Any:
    """A glued value, from its text: ``3``, ``0.25`` or ``np.float64(0.25)``."""
    bare = re.sub(r"^np\.\w+\((.*)\)$", r"\1", printed.strip())
    try:
        return int(bare) if re.fullmatch(r"-?\d+", bare) else float(bare)
    except ValueError:
        return np.str_(bare.strip("'"))
