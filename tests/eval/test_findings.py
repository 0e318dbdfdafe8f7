"""One page of answers: each from rows, short, and with what remains."""

from pathlib import Path

import pytest

from eval.cited import plain
from eval.pages.findings import FINDINGS, MOST

each = pytest.mark.parametrize("name", FINDINGS)


@each
def test_an_answer_is_short_and_says_what_remains(name):
    found = FINDINGS[name]
    frame = found.experiment.recorded()
    if frame is None or not found.answers(frame):
        assert found.markdown() == found.experiment.nothing
        return
    lines = found.answers(frame)
    assert 0 < len(lines) <= MOST and all(line.strip() for line in lines)
    told = plain(found.markdown())
    assert lines[0].removeprefix("- ") in told and found.remains in told
    assert found.experiment.command in told


@each
def test_a_finding_names_a_page(name):
    assert (Path(__file__).parents[2] / "notebooks" / f"{FINDINGS[name].page}.ipynb").is_file()
