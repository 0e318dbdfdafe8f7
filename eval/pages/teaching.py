"""What a chapter asks of a class: its goals, and minutes to read and to run it.

    python -m eval.pages.teaching

writes ``teaching.md``, one line a chapter, and ``minutes_CHAPTER.md``, a sentence for the chapter
itself. Goals are those that the chapter states; minutes to read are counted from its text, and
minutes to run come from recorded rows (`eval.speed --parts pages`).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from eval import speed
from eval.pages.here import minutes
from eval.rows import RESULTS
from eval.speed.report import page_minutes
from eval.tables import markdown
from medil.system.files import atomic_output

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("_build/tables")
WORDS_A_MINUTE, FIGURES_A_MINUTE, LINES_A_MINUTE = 200, 2, 10  # prose; pictures; code that is shown
RUN = "To run on one CPU thread"
HOW_RUN = "Minutes to run are recorded (`python -m eval.speed --parts pages`).\n\n"
STEP_MIN = 5  # minutes to read are rounded up to
GOALS = re.compile(r"You will (.+?)\.(?:\s|$)", re.S)


def goals(notebook: Mapping[str, Any]) -> str:
    """What a reader of a chapter will be able to do, as the chapter says it; empty if it does not.

    Example:
        >>> goals({"cells": [{"cell_type": "markdown", "source": "You will **look**. Then go."}]})
        '**look**'
    """
    found = GOALS.search("\n".join(_prose(notebook)))
    return found[1] if found else ""


def minutes_to_read(notebook: Mapping[str, Any]) -> int:
    """Minutes to read a chapter with its exercises: words, figures and lines of shown code."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    captions = [c["metadata"].get("mystnb", {}).get("figure", {}).get("caption") for c in cells]
    words = sum(len(re.findall(r"[^\W\d_]{2,}", text)) for text in _prose(notebook))
    words += sum(len(caption.split()) for caption in captions if caption)
    shown = [
        c for c in cells if not {"hide-input", "remove-cell"} & set(c["metadata"].get("tags", []))
    ]
    lines = sum("".join(cell["source"]).count("\n") + 1 for cell in shown)
    figures = sum(bool(caption) for caption in captions)
    taken = words / WORDS_A_MINUTE + figures / FIGURES_A_MINUTE + lines / LINES_A_MINUTE
    return STEP_MIN * math.ceil(taken / STEP_MIN)


def _prose(notebook: Mapping[str, Any]) -> list[str]:
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"]


def sentence(name: str, notebook: Mapping[str, Any], frame: pd.DataFrame | None) -> str:
    """Minutes to read and, where they are recorded, to run a chapter."""
    to_read = f"About {minutes_to_read(notebook)} minutes to read, exercises included."
    return f"{to_read} {minutes(name, frame)}".strip()


def table(notebooks: Mapping[str, Mapping[str, Any]], frame: pd.DataFrame | None) -> pd.DataFrame:
    """One line a chapter, in Markdown."""
    timed = page_minutes(frame) if frame is not None else pd.DataFrame(columns=["page", "where"])
    on_cpu = timed[timed["where"] == "one thread of a CPU"]
    lines = pd.DataFrame(
        {
            "Chapter": [f"[](../notebooks/{name}.ipynb)" for name in notebooks],
            "You will": [goals(page) for page in notebooks.values()],
            "Minutes to read": [str(minutes_to_read(page)) for page in notebooks.values()],
        }
    )
    if len(on_cpu):
        took = on_cpu.set_index("page")["minutes"].map("{:.1f}".format).reindex(list(notebooks))
        lines[RUN] = took.fillna("").to_list()
    return lines


def write(out: Path, folder: Path = RESULTS) -> list[Path]:
    """Write the table and the sentences; the files."""
    paths = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    notebooks = {path.stem: json.loads(path.read_text("utf-8")) for path in paths}
    frame = speed.EXPERIMENT.recorded(folder)
    texts = {f"minutes_{name}": sentence(name, page, frame) for name, page in notebooks.items()}
    lines = table(notebooks, frame)
    texts["teaching"] = (HOW_RUN if RUN in lines else "") + markdown(lines)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with atomic_output(out / f"{name}.md", force=True) as part:
            part.write_text(text + "\n", "utf-8")
    return [out / f"{name}.md" for name in texts]


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0."""
    parser = argparse.ArgumentParser(prog="python -m eval.pages.teaching", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the files")
    print("\n".join(map(str, write(parser.parse_args(arguments).out))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
