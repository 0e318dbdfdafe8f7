"""Every row of the paper map resolves: the function imports, the test and the page exist."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book/paper_map.md"


def rows() -> list[list[str]]:
    """Cells of the tables: idea, functions, tests, page."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "idea"]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def functions_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def resolve(dotted: str) -> object:
    """The object that a dotted path names, through modules and then attributes."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(dotted)


def named(row: list[str]) -> str:
    return row[0][:40]


def test_the_map_has_rows_of_four_cells():
    assert len(rows()) >= 12
    assert {len(row) for row in rows()} == {4}


@pytest.mark.parametrize("row", rows(), ids=named)
def test_functions_of_a_row_import(row):
    assert quoted(row[1]), "a row names at least one function"
    for dotted in quoted(row[1]):
        assert resolve(dotted) is not None


@pytest.mark.parametrize("row", rows(), ids=named)
def test_tests_of_a_row_exist(row):
    assert quoted(row[2]), "a row names at least one test"
    for place in quoted(row[2]):
        path, name = place.split("::")
        assert name in functions_in(f"tests/{path}"), place


@pytest.mark.parametrize("row", rows(), ids=named)
def test_the_page_of_a_row_exists(row):
    links = re.findall(r"\]\(([^)#]+)", row[3])
    assert links, "a row links to at least one page"
    for link in links:
        assert (PAGE.parent / link).resolve().is_file(), link


def test_a_row_that_resolves_to_nothing_is_noticed():
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve("medil.grid.no_such_function")
