"""Scans for the evaluation: a cut keeps every voxel at its place in mm."""

import numpy as np
import pytest
import torch

from eval.subjects import Scan, brain_at_1_mm, cut
from medil.data import manifest
from medil.errors import InputError
from medil.grid import centres_mm
from medil.volume import Volume


@pytest.fixture
def ramp_scan(oblique_grid):
    """Values are positions along R in mm; the mask is the upper half."""
    position_mm = centres_mm(oblique_grid)[..., 0]
    mask = np.arange(oblique_grid.shape[2]) >= 4
    return Scan(Volume(position_mm, oblique_grid), np.broadcast_to(mask, oblique_grid.shape))


def test_a_cut_keeps_every_voxel_at_its_place_in_mm(ramp_scan):
    grid = ramp_scan.volume.grid
    part = cut(ramp_scan, grid.index_to_ras((3, 4, 4)), (3.0, 4.5, 9.0))
    assert part.volume.grid.shape == (3, 3, 3)
    torch.testing.assert_close(part.volume.data, centres_mm(part.volume.grid)[..., 0])
    np.testing.assert_allclose(part.volume.grid.centre_mm, grid.index_to_ras((3, 4, 4)))
    assert part.mask[..., 0].sum() == 0 and part.mask[..., 1:].all()


def test_a_cut_stays_inside_the_scan(ramp_scan):
    grid = ramp_scan.volume.grid
    part = cut(ramp_scan, grid.corners_mm[0], (500.0, 3.0, 6.0))
    assert part.volume.grid.shape == (grid.shape[0], 2, 2)
    np.testing.assert_allclose(
        part.volume.grid.index_to_ras((0, 0, 0)), grid.index_to_ras((0,) * 3)
    )


def test_a_cut_owns_its_voxels(ramp_scan):
    part = cut(ramp_scan, ramp_scan.volume.grid.centre_mm, (3.0, 3.0, 3.0))
    part.volume.data.zero_()
    assert ramp_scan.volume.data.abs().max() > 0


def test_without_the_real_brain_the_template_stands_in_and_says_so(monkeypatch):
    pytest.importorskip("nilearn")

    def nowhere(entry, **_):
        raise InputError("offline")

    monkeypatch.setattr(manifest, "fetch", nowhere)
    monkeypatch.setattr(manifest, "available", lambda entry: False)
    scan, told = brain_at_1_mm()
    assert "stands in" in told
    assert scan.volume.grid.spacing_mm == (1.0, 1.0, 1.0)


def test_a_damaged_copy_is_told_and_not_hidden(monkeypatch):
    def damaged(entry, **_):
        raise InputError("not the published bytes")

    monkeypatch.setattr(manifest, "fetch", damaged)
    monkeypatch.setattr(manifest, "available", lambda entry: True)
    with pytest.raises(InputError, match="published bytes"):
        brain_at_1_mm()
