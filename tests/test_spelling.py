"""Words are spelled right: pages, notebooks, README, docstrings and comments, by codespell."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("codespell_lib", reason="codespell is not installed; `make test` installs it")
ROOT = Path(__file__).parents[1]
READ = ("*.md", "*.cff", "dodo.py", "book/**/*.md", "notebooks/*.ipynb", "data_manifests/*.toml")
CODE = ("medil/**/*.py", "eval/**/*.py", "eval/**/*.md", "tests/**/*.py")
NAMES = ("unser", "uptodate", "ot")  # an author, a word of doit, a VR of DICOM


def misspelled(*paths: Path) -> list[str]:
    command = [sys.executable, "-m", "codespell_lib", "-L", ",".join(NAMES), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def test_words_are_spelled_right():
    paths = sorted({path for pattern in (*READ, *CODE) for path in ROOT.glob(pattern)})
    assert len(paths) > 100
    assert misspelled(*paths) == []


def test_a_misspelled_word_is_found(tmp_path):
    (tmp_path / "page.md").write_text("The recieved volume.")  # codespell:ignore recieved
    (line,) = misspelled(tmp_path / "page.md")
    assert "received" in line
