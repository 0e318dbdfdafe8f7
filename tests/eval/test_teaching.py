"""The page for teachers says what the chapters say, and minutes that are counted or recorded."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from eval.pages import teaching
from eval.speed.timing import PAGE

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
TEXT = {"cell_type": "markdown", "source": ["You will **look**, and **see**.\n", "Then go."]}


def code(n_lines: int, caption: str = "", tags: tuple[str, ...] = ()) -> dict:
    metadata = {"tags": list(tags), "mystnb": {"figure": {"caption": caption} if caption else {}}}
    return {"cell_type": "code", "source": "x\n" * (n_lines - 1) + "x", "metadata": metadata}


def recorded(name: str, cpu_s: float) -> pd.DataFrame:
    values = {"seconds": 1000.0, "cpu_s": cpu_s}
    about = {"kind": f"{PAGE} {name}", "arm": "notebook", "sizes": "quick", "where": "1 thread"}
    return pd.DataFrame([{**about, "metric": m, "value": v} for m, v in values.items()])


def test_goals_are_the_chapter_s_own():
    assert teaching.goals({"cells": [code(1), TEXT]}) == "**look**, and **see**"
    assert teaching.goals({"cells": [code(1)]}) == ""


@pytest.mark.parametrize("path", NOTEBOOKS[:-1], ids=lambda path: path.stem)
def test_every_chapter_but_the_summary_states_goals(path):
    assert teaching.goals(json.loads(path.read_text("utf-8"))).count("**") >= 4


def test_minutes_to_read_count_words_figures_and_shown_code():
    words = {"cell_type": "markdown", "source": "word " * 700}  # 3.5 minutes
    page = [words, code(5, "Two words"), code(5, "Two words"), code(99, tags=("hide-input",))]
    assert teaching.minutes_to_read({"cells": page[:1]}) == 5
    assert teaching.minutes_to_read({"cells": page}) == 10  # 3.52 + 1 + 1


def test_minutes_to_run_stand_where_rows_do():
    pages = {"00_start": {"cells": [TEXT]}, "01_more": {"cells": [TEXT]}}
    assert list(teaching.table(pages, None)) == ["Chapter", "You will", "Minutes to read"]
    table = teaching.table(pages, recorded("01_more", 90.0))
    assert table["To run on one CPU thread"].tolist() == ["", "1.5"]
    read = "About 5 minutes to read, exercises included."
    assert teaching.sentence("00_start", pages["00_start"], None) == read
    ran = f"{read} Recorded: 1.5 minutes on one thread of a CPU."
    assert teaching.sentence("01_more", pages["01_more"], recorded("01_more", 90.0)) == ran


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_includes_its_own_minutes_and_types_none(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert "minutes to read" not in text
    included = re.findall(r"minutes_(\w+)\.md", text)
    assert included == [] or included == [path.stem]
