"""Downloaded notebooks: every page in Markdown that any program for notebooks shows."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from eval.pages.plain import Words, leftovers, plain, quoted, text, words_of

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
REFERRED = "{numref}`fig-cut` {eq}`eq-x`"
WORDS = Words({"01_where": "Where is it?", "notation": "Notation"}, {"lee": "Lee, 2022"}, Path())


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Words:
    pytest.importorskip("pybtex")
    return words_of(ROOT, tmp_path_factory.mktemp("tables"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_download_has_no_empty_link_no_role_and_no_directive(path, words):
    stored = json.loads(path.read_text("utf-8"))
    before = copy.deepcopy(stored)
    page = plain(stored, words)
    assert stored == before
    assert leftovers(page) == []
    assert not any(cell.get("outputs") for cell in page["cells"])
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert [cell for cell in page["cells"] if cell["cell_type"] == "code"] == code
    ids = [cell["id"] for cell in page["cells"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ("see [](01_where.ipynb#part)", "see [Where is it?](01_where.ipynb)"),
        ("see [](../book/notation.md)", "see *Notation*"),
        ("[](x.ipynb) and [own](y.html)", "[x](x.ipynb) and [own](y.html)"),
        ("{py:func}`decode <medil.MedIL.decode>` {py:class}`~medil.Grid`", "`decode` `medil.Grid`"),
        ("so {cite}`lee,lee`, says {cite:t}`lee`", "so (Lee, 2022; Lee, 2022), says Lee, 2022"),
        ("{glue:text}`kept:.2f` of {glue:text}`gone`", "0.25 of …"),
        ("{term}`pitch <Latent pitch>` {term}`code`", "pitch code"),
        ("(label)=\n## Title", "## Title"),
        ("```python\nx = {1}\n```", "```python\nx = {1}\n```"),
        (
            ":::{admonition} Before\n:class: note\n\nRead.\n\nThen run.\n:::",
            "> **Before**\n>\n> Read.\n>\n> Then run.",
        ),
        (
            "````{dropdown} Answer\n```python\n1\n```\n````",
            "<details><summary>Answer</summary>\n\n```python\n1\n```\n\n</details>",
        ),
        ("```{raw} html\n:file: live.html\n```", "*(Here the book has a live picture.)*"),
        ('5 <span data-rows="{a}">6 dB</span>', "5 6 dB"),
    ],
)
def test_markup_becomes_what_it_stands_for(myst, markdown):
    assert text(myst, replace(WORDS, values={"kept": 0.25})) == markdown


def test_tables_are_written_out_with_their_caption(tmp_path):
    (tmp_path / "sizes.csv").write_text("Arm,a|b\nMedIL,2\n")
    page = "```{csv-table} Sizes, n = 2.\n:file: ../tables/sizes.csv\n:header-rows: 1\n```"
    table = "Sizes, n = 2.\n\n| Arm | a\\|b |\n| --- | --- |\n| MedIL | 2 |"
    assert text(page, replace(WORDS, tables=tmp_path)) == table


def test_figures_and_equations_are_numbered_and_captions_stay():
    figure = {"figure": {"caption": "A cut {cite}`lee`.", "name": "fig-cut"}}
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["$$\n", "x\n$$ (eq-x)"]},
        {"cell_type": "code", "id": "b", "metadata": {"mystnb": figure}, "source": ["draw()"]},
        {"cell_type": "markdown", "id": "c", "metadata": {}, "source": REFERRED},
    ]  # fmt: skip
    sources = ["".join(cell["source"]) for cell in plain({"cells": cells}, WORDS)["cells"]]
    assert sources == [
        "$$\nx\\tag{1}\n$$", "draw()", "*Figure 1.* A cut (Lee, 2022).", "Figure 1 (1)"
    ]  # fmt: skip


def test_values_that_prose_quotes_are_read_from_an_executed_page():
    def glued(name: str, printed: str) -> dict:
        kind = "application/papermill.record/text/plain"
        return {"data": {kind: printed}, "metadata": {"scrapbook": {"name": name}}}

    outputs = [glued("n", "3"), glued("x", "np.float64(0.25)"), glued("s", "'ten'"), {"text": "1"}]
    assert quoted({"cells": [{"outputs": outputs}, {}]}) == {"n": 3, "x": 0.25, "s": "ten"}
