"""Notebooks are thin, stored without outputs, and every figure says what it shows.

Alt text lives in the metadata of the cell that draws, where myst-nb reads it:

    {"mystnb": {"image": {"alt": "Ringing vanishes at 1 mm."},
                "figure": {"caption": "What to see, data, n.", "name": "fig-ringing"}}}

Whether a cell draws is seen here from its code and, once executed, from its outputs:
`dodo.py` publishes no figure without alt text.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from eval.pages.results import next_page
from eval.rows import RESULTS
from eval.rows_file import parts

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
DRAWING = {"compare", "error_maps", "spectra", "show", "savefig"}
EMPTY_WORDS = ("a plot", "plot of", "a figure", "figure of", "an image", "image of", "a picture")
MOST_SHOWN, MOST_FOLDED = 20, 25  # lines of a code cell
SETTINGS = tomllib.loads((ROOT / "notebooks/ruff.toml").read_text("utf-8"))
CONTENTS = re.findall(r"file: (\S+)", (ROOT / "book/_toc.yml").read_text("utf-8"))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def is_folded(cell: dict) -> bool:
    return any(tag.startswith("hide-") for tag in cell["metadata"].get("tags", []))


def tree(cell: dict) -> ast.AST:
    return ast.parse("\n".join(python(cell)))


def python(cell: dict) -> list[str]:
    """The lines of a cell but those for IPython."""
    return [line for line in source(cell).splitlines() if not line.lstrip().startswith(("%", "!"))]


def draws(cell: dict) -> bool:
    """Whether a cell ends in a figure: a call of `DRAWING`, or the figure that it made."""
    calls = [node.func for node in ast.walk(tree(cell)) if isinstance(node, ast.Call)]
    names = {getattr(call, "attr", getattr(call, "id", "")) for call in calls}
    body = tree(cell).body
    last = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    shows_name = isinstance(last, ast.Name) and last.id.startswith(("figure", "fig"))
    ends_in_call = isinstance(last, ast.Call) and bool(names & DRAWING)
    return shows_name or ends_in_call


def alt_text(cell: dict) -> str:
    return cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")


def test_there_are_notebooks():
    assert NOTEBOOKS


@each_notebook
def test_one_tagged_cell_holds_the_parameters(path):
    tagged = [c for c in code_cells(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    names = {node.id for node in ast.walk(tree(tagged[0])) if isinstance(node, ast.Name)}
    assert "profile" in names


@each_notebook
def test_the_profile_is_that_of_the_hardware(path):
    (tagged,) = [c for c in code_cells(path) if "parameters" in c["metadata"].get("tags", [])]
    assert f'profile = profile_here("{path.stem}")' in source(tagged)


def test_the_first_code_cell_installs_what_is_missing_in_the_same_words_everywhere():
    first = [code_cells(path)[0] for path in NOTEBOOKS]
    assert len({json.dumps(cell) for cell in first}) == 1
    assert first[0]["metadata"]["tags"] == ["remove-cell"]
    for words in ('find_spec("medil") is None', '"torch", "torchvision", "numpy"', "medil-book["):
        assert words in source(first[0])


@each_notebook
def test_stored_without_outputs(path):
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@each_notebook
def test_stored_without_traces_of_a_run_or_a_machine(path):
    assert "papermill" not in read(path)["metadata"]
    assert read(path)["metadata"]["kernelspec"]["name"] == "python3"


@each_notebook
def test_no_code_cell_is_longer_than_a_screen(path):
    for cell in code_cells(path):
        most = MOST_FOLDED if is_folded(cell) else MOST_SHOWN
        assert len(source(cell).splitlines()) <= most, source(cell)[:80]


@each_notebook
def test_code_fits_the_text_column_without_marks_for_tools(path):
    for line in "\n".join(map(source, code_cells(path))).splitlines():
        assert len(line) <= SETTINGS["line-length"], line
        assert not re.search(r"#\s*(noqa|fmt:|type: ignore)", line), line


@each_notebook
def test_folded_cells_say_what_they_hold(path):
    for cell in code_cells(path):
        if is_folded(cell):
            assert cell["metadata"].get("mystnb", {}).get("code_prompt_show"), source(cell)[:80]


@each_notebook
def test_next_is_the_next_page_of_the_contents(path):
    words = "".join(source(c) for c in read(path)["cells"] if c["cell_type"] == "markdown")
    if "next_page(" in "".join(map(source, code_cells(path))):
        words = next_page(own=False)
    [link] = re.findall(r"\*\*Next:\*\*.*?\]\(([^)]*)\)", words)
    target = (path.parent / link).resolve().relative_to(ROOT).with_suffix("")
    assert str(target) == CONTENTS[CONTENTS.index(f"notebooks/{path.stem}") + 1]


@each_notebook
def test_no_table_has_a_nameless_first_column(path):
    """A frame that pandas shows has an index; a name over it, or `hide`, fills the corner."""
    for cell in code_cells(path):
        [*_, last] = source(cell).splitlines()
        if last.startswith("pd.DataFrame"):
            assert "rename_axis(columns=" in last, last


@each_notebook
def test_an_executed_page_misses_no_rows_that_are_there(path):
    executed = ROOT / "_build/executed" / path.name
    if not executed.is_file():
        pytest.skip("the page was not executed here; `make book` does")
    said = json.dumps([cell["outputs"] for cell in code_cells(executed)])
    for name in re.findall(
        r"(?:[Nn]othing|[Nn]o \w+) is recorded.{0,80}python -m eval\.(\w+)", said
    ):
        assert not parts(RESULTS / f"{name}.jsonl"), f"{path.stem}: rows of {name} are recorded"


@each_notebook
def test_pages_write_squares_and_thousands_as_people_do(path):
    words = "".join(source(c) for c in read(path)["cells"] if c["cell_type"] == "markdown")
    assert re.findall(r"\br2\b|\d\^3\b|\de\+\d", re.sub(r"\$.*?\$", "", words, flags=re.S)) == []


@each_notebook
def test_no_class_definitions_and_no_path_surgery(path):
    for cell in code_cells(path):
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(tree(cell)))
        assert "sys.path" not in source(cell)


@each_notebook
def test_every_figure_has_alt_text_and_a_caption(path):
    for cell in filter(draws, code_cells(path)):
        alt = alt_text(cell)
        assert len(alt) >= 20, f"no alt text: {source(cell)[:80]}"
        assert not alt.lower().startswith(EMPTY_WORDS), f"say the finding, not: {alt}"
        assert cell["metadata"]["mystnb"].get("figure", {}).get("caption"), "a figure needs words"


@each_notebook
def test_cells_have_ids_and_they_differ(path):
    ids = [cell["id"] for cell in read(path)["cells"]]
    assert len(ids) == len(set(ids))


def test_every_notebook_is_in_the_table_of_contents():
    contents = (ROOT / "book/_toc.yml").read_text("utf-8")
    listed = [line.split("notebooks/")[1] for line in contents.splitlines() if "notebooks/" in line]
    assert listed == [path.stem for path in NOTEBOOKS]


@pytest.mark.notebook
@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_in_the_quick_profile(path, tmp_path):
    command = [sys.executable, "-m", "papermill", str(path), str(tmp_path / path.name)]
    command += ["-k", "python3", "-p", "profile", "quick", "--cwd", str(path.parent)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    for cell in code_cells(tmp_path / path.name):
        if any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            assert alt_text(cell), f"draws without alt text: {source(cell)[:80]}"


def test_notebooks_call_what_is_there_as_it_is_declared(tmp_path):
    """By mypy; other faults of types are no faults here, since cells use names again."""
    for path in NOTEBOOKS:
        code = [line for cell in code_cells(path) for line in python(cell)]
        (tmp_path / f"notebook_{path.stem}.py").write_text("\n".join(code) + "\n", "utf-8")
    options = [
        "--config-file=",
        "--allow-redefinition-new",
        "--local-partial-types",
        "--ignore-missing-imports",
    ]
    said = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *map(str, sorted(tmp_path.glob("*.py")))],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert f"{len(NOTEBOOKS)} source files" in said, said
    faults = ("[call-arg]", "[name-defined]", "[import-not-found]", "error: Module")
    assert not [line for line in said.splitlines() if any(fault in line for fault in faults)]


def test_figures_tables_and_equations_are_numbered_by_chapter():
    contents = yaml.safe_load((ROOT / "book/_toc.yml").read_text("utf-8"))
    chapters = [part for part in contents["parts"] if "look things up" not in part["caption"]]
    assert all(part.get("numbered") == 1 for part in chapters)
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    assert config["sphinx"]["config"]["numfig_secnum_depth"] == 1
    assert config["html"]["use_multitoc_numbering"]
