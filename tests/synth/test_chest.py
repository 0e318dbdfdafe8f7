"""A chest: its tissues stand where they belong, its airways are known, its scans are scans."""

import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid
from medil.synth import chest as chests
from medil.synth import ct
from medil.synth.chest import chest, draw_body, is_in_lung
from medil.synth.phantom import render


@pytest.fixture(scope="module")
def phantom():
    return chest(3, generations=4)


def values_at(phantom, *points_mm):
    return phantom(torch.tensor(np.array(points_mm), dtype=torch.float64)).tolist()


def test_lumens_are_air_and_walls_are_tissue(phantom):
    branches = phantom.facts["branches"]
    assert branches[0]["radius_mm"] == 8.0 and len(branches) > 8
    for branch in branches:
        start, end = np.array(branch["start_mm"]), np.array(branch["end_mm"])
        middle, along = (start + end) / 2, (end - start) / branch["length_mm"]
        sideways = np.cross(along, [0.3, 0.5, 0.8])
        sideways /= np.linalg.norm(sideways)
        reach = branch["radius_mm"] + branch["wall_mm"] / 2
        lumen, wall = values_at(phantom, middle, middle + reach * sideways)
        assert lumen == chests.AIR_HU
        assert wall in (pytest.approx(40.0), chests.AIR_HU)  # or in a child's lumen


def test_every_airway_beyond_the_main_bronchi_ends_in_a_lung(phantom):
    body = draw_body(np.random.default_rng([3, 31]))
    branches = phantom.facts["branches"]
    for branch in branches[1:]:
        assert branch["generation"] < 2 or is_in_lung(np.array(branch["end_mm"]), body)
        assert branch["radius_mm"] < branches[branch["parent"]]["radius_mm"]


def test_tissues_stand_where_they_belong(phantom):
    body = draw_body(np.random.default_rng([3, 31]))
    back = body.middle - body.half_depth + body.fat + 34
    outside, fat, heart, spine, lung = values_at(
        phantom, (300, 0, 0), (0.0, body.middle + body.half_depth - body.fat / 2, 100.0),
        body.heart[0], (0.0, back, 25.0), body.lungs[0, 0] + [8, 10, 60],
    )  # fmt: skip
    assert (outside, fat, heart, spine) == (-1000.0, -100.0, 45.0, 200.0)
    assert -1100 <= lung < -500


def test_a_box_has_the_values_of_the_whole(phantom):
    box = Grid.from_spacing((9, 9, 9), 2.0, (30.0, -10.0, -60.0))
    low, high = box.bounds_mm
    points = torch.from_numpy(box.index_to_ras(np.argwhere(np.ones(box.shape))))
    assert torch.equal(phantom.near(low, high)(points), phantom(points))


def test_out_of_range_is_refused():
    with pytest.raises(InputError, match="0 to 14 generations, not 20"):
        chest(0, 20)
    with pytest.raises(InputError, match="1 to 12, not 30"):
        chest(0, 2, 30)


def test_a_scan_is_blurred_noisy_and_whole_numbers(phantom):
    body = Grid.from_spacing((24, 24, 6), (0.8, 0.8, 2.0), (20.0, -10.0, -60.0))
    loud, quiet = (
        ct.ct_scan(phantom, body, 0.5, hu, np.random.default_rng(0)) for hu in (20.0, 1e-3)
    )
    assert loud.dtype == torch.int16
    assert float((loud - quiet).float().std()) == pytest.approx(20, abs=2)
    sharp = render(phantom, body, ct.SUPERSAMPLE)
    assert quiet.float().diff(dim=0).abs().mean() < sharp.diff(dim=0).abs().mean()


def test_a_cohort_shows_parts_and_whole_chests(monkeypatch):
    monkeypatch.setattr(ct, "chest", lambda seed: chest(seed, generations=2))
    monkeypatch.setattr(ct, "SIDE_MM", 20.0)
    monkeypatch.setattr(ct, "COARSE_MM", (16.0, 20.0))
    one, again, whole = (ct.chest_subject(5, k) for k in (0, 0, 3))
    assert torch.equal(one.data, again.data) and one.grid == again.grid
    low, high = ct.IN_PLANE_MM
    assert low <= one.grid.spacing_mm[0] == one.grid.spacing_mm[1] <= high
    assert min(whole.grid.extent_mm) > 150 and float(whole.data.min()) <= -1000
