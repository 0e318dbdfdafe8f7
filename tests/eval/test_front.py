"""The first page shows one number that speaks for the model and one against it."""

import numpy as np
import pandas as pd
import pytest

from eval.pages import front
from eval.stats import compare


def point(text, kind, size_mm, gains, said):
    gain = compare(np.array(gains)[:, None])
    line = {"arm": "medil", "text": text, "kind": kind, "size_mm": size_mm, "said": said}
    return line | {"gain": gain, "n": len(gains), "per_voxel": 0.5}


@pytest.fixture
def recorded(monkeypatch):
    table = pd.DataFrame({"arm": ["medil"]})
    lines = [
        point("its own", "cubes", 0.9, [1.9, 2.0, 2.1], "wins"),
        point("1.75 mm", "cubes", 1.75, [-1.1, -1.0, -0.9], "loses"),
        point("1 × 1 × 6 mm", "slices along S", 6.0, [-9.1, -9.0, -8.9], "loses"),
    ]
    monkeypatch.setattr(front, "wide", lambda frame: table)
    monkeypatch.setattr(front, "points", lambda table: pd.DataFrame(lines))
    return table


def test_the_largest_loss_stands_beside_the_gain(recorded):
    won, lost = front.cards(recorded).split(":::\n:::")
    assert "+2.00 dB PSNR" in won and "nearer to the scan" in won and "n = 3 real brains" in won
    assert "−9.00 dB PSNR" in lost and "farther from the scan" in lost and "slices of 6 mm" in lost


def test_without_rows_the_page_says_so(tmp_path):
    assert front.cards(None) == front.NOTHING
    assert front.write(tmp_path, tmp_path).read_text("utf-8").strip() == front.NOTHING
