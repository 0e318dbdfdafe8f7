"""`medil book`: which notebooks are executed, and what a killed build goes on with.

The builds are real; their notebooks, papermill and sources are toys in a folder of their own.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medil.cli.book import choose
from medil.errors import InputError
from tests.images import refused

pytest.importorskip("doit")
ROOT = Path(__file__).parents[2]
PAPERMILL = """
import os, shutil, sys
from pathlib import Path
notebook, copy = sys.argv[1:3]
with open("log", "a") as log:
    log.write(Path(notebook).stem + "\\n")
if Path("deadly").exists() and len(Path("log").read_text().split()) == 2:
    Path("deadly").unlink()
    os.kill(os.getppid(), 9)
shutil.copy(notebook, copy)
"""
CELL = {"cell_type": "code", "source": "1", "metadata": {}, "outputs": []}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A checkout with two notebooks and one source, which doit builds in a process of its own."""
    shutil.copy(ROOT / "dodo.py", tmp_path)
    files = ("eval/__init__", "eval/report", "eval/pages/front", "eval/pages/failures")
    pictures = ("eval/pictures/__init__", "eval/pictures/architecture")
    for name in (*files, *pictures, "eval/pages/__init__", "medil/source"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import os; os.makedirs('_build/tables', exist_ok=True)")
    (tmp_path / "papermill.py").write_text(PAPERMILL)
    (tmp_path / "notebooks").mkdir()
    for name in ("00_one", "01_two"):
        notebook = {"cells": [CELL], "metadata": {}}
        (tmp_path / f"notebooks/{name}.ipynb").write_text(json.dumps(notebook))
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), path]))
    return tmp_path


def execute(toy: Path, **settings: str) -> tuple[int, list[str]]:
    """Run the task `execute`; its exit code, and the notebooks that ran, in doit's order."""
    (toy / "log").write_text("")
    command = [sys.executable, "-m", "doit", "run", "-n", "1", "execute"]
    ran = subprocess.run(command, cwd=toy, env=os.environ | settings, capture_output=True)
    return ran.returncode, (toy / "log").read_text().split()


def test_a_killed_build_goes_on_with_the_notebook_at_which_it_was(toy):
    (toy / "deadly").touch()
    code, (first, second) = execute(toy)
    assert code == -9
    assert execute(toy, ONLY=first) == (0, [])
    assert execute(toy) == (0, [second])


def test_numbers_name_notebooks_and_others_are_refused():
    stems = ["00_start", "04_two", "10_speed"]
    assert choose("", stems) == []
    assert choose("00, 4,10", stems) == ["00_start", "04_two", "10_speed"]
    for wrong in ("4,", "44", "x", "004"):
        with pytest.raises(InputError, match="there are 0, 4, 10"):
            choose(wrong, stems)


def test_the_command_refuses_a_notebook_that_is_not_there(run_medil):
    refused(run_medil("book", "--only", "04,99"), "there is no notebook '99'")


def test_book_outside_a_checkout_says_where_to_go(run_medil, monkeypatch, tmp_path):
    import medil.cli.book

    monkeypatch.setattr(medil.cli.book, "__file__", str(tmp_path / "medil" / "cli" / "x.py"))
    refused(run_medil("book"), "clone the repository")
