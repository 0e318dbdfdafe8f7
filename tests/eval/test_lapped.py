"""The lapped cosine codec: how many numbers it keeps, and which waves it passes."""

from __future__ import annotations

import numpy as np
import pytest

from eval.coders.lapped import lapped
from medil.errors import InputError
from medil.grid import Grid
from tests.eval.test_ablation import texture


def test_lapped_keeps_at_least_as_many_numbers_and_all_of_them_copy():
    grid = Grid.from_spacing((24, 20, 9), (1.0, 1.0, 3.0))
    data = texture(grid.shape).double().numpy()
    coded = lapped(data, grid, 500)
    assert 500 <= coded.numbers_kept <= 900 and coded.reconstruction.shape == data.shape
    np.testing.assert_allclose(lapped(data, grid, data.size).reconstruction, data, atol=1e-9)
    with pytest.raises(InputError, match="shape"):
        lapped(data[1:], grid, 500)


@pytest.mark.parametrize("cycles", [0, 1, 5, 10, 11, 12])
def test_lapped_passes_waves_well_below_its_limit_band_edges_included(cycles):
    grid = Grid.from_spacing((40, 40, 40), 1.0)
    wave = np.cos(np.pi * cycles * (np.arange(40) + 0.5) / 40)
    data = wave[:, None, None] * np.ones((1, 40, 40))
    coded = lapped(data, grid, 22**3)  # 22 functions an axis, 11 to a band
    error = np.linalg.norm(coded.reconstruction - data) / np.linalg.norm(data)
    assert coded.numbers_kept == 22**3 and error < 0.03
