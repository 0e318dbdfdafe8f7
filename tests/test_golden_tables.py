"""The tables that recorded rows give today, byte for byte, while the house is rearranged."""

from pathlib import Path

import pytest

from eval import report
from eval.rows import RESULTS

GOLDEN = Path(__file__).parent / "golden/tables"
CSV = sorted(path.name for path in GOLDEN.glob("*.csv"))
VERDICTS = ["ablation_verdict.txt", "extrapolation_verdict.txt"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    report.write(RESULTS, folder)
    return folder


def test_every_table_is_written(tables):
    written = {path.name for path in tables.iterdir() if not path.stem.endswith("provenance")}
    assert written == {path.name for path in GOLDEN.iterdir()}


@pytest.mark.parametrize("name", CSV + VERDICTS)
def test_a_table_is_byte_equal_to_its_golden_copy(tables, name):
    assert (tables / name).read_bytes() == (GOLDEN / name).read_bytes()
