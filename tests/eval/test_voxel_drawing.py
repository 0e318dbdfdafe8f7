"""The drawing of one voxel says what `Grid` says."""

import pytest

from eval.pictures.voxel import one_voxel
from medil.grid import Grid

pytest.importorskip("matplotlib").use("Agg")


def test_the_rulers_agree_with_the_grid():
    grid = Grid.from_spacing((4, 1, 1), (3.0, 1.0, 1.0), origin_mm=(6.0, -2.0, 1.0))
    weight, row = one_voxel(grid).axes
    words = [text.get_text().replace("−", "-") for text in row.texts]
    rulers = words[words.index("-0.5") :]
    numbers = [float(word) for word in rulers if word[-1].isdigit()]
    index, mm, norm = numbers[:9], numbers[9:18], numbers[18:]
    assert index == [n / 2 - 0.5 for n in range(9)]
    assert mm == [grid.index_to_ras((i, 0, 0))[0] for i in index]
    assert norm == pytest.approx([n / 4 - 1 for n in range(9)])
    low, high = weight.lines[0].get_xdata()[1:3]
    assert (low, high) == (7.5, 10.5)  # the cell of voxel 1
