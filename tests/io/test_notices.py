"""`medil.io.notices`: mistakes are named, and ordinary scans are not bothered."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medil.io.intensity import robust_intensity
from medil.io.notices import notices
from medil.volume import load
from tests.images import head, toy_labels

SIZES = (1.0, 1.2, 3.0)


def said(data, spacing_mm=SIZES) -> str:
    return " ".join(notices(data, spacing_mm, robust_intensity(data)))


@pytest.fixture
def scan(rng) -> torch.Tensor:
    return head().data


def test_an_ordinary_scan_has_none(scan):
    for data in (scan, scan.round().int(), scan * 1e-3, scan - 1000, (scan / 4).to(torch.uint8)):
        assert said(data) == ""


def test_real_scans_have_none(mirror):
    for path in ("open_ms_t1/longitudinal_patient01_study1_T1W.nii.gz", "ct/ct-64.nrrd"):
        volume = load(mirror / path)
        assert said(volume.data, volume.grid.spacing_mm) == ""


def test_missing_values_are_counted(scan):
    scan[:2] = torch.nan
    assert f"NaN or Inf ({2 * 26 * 28:,}) are left out" in said(scan)


@pytest.mark.parametrize("sizes", [(1000, 1000, 1000), (0.001, 0.001, 0.003), (1, 1, 25)])
def test_sizes_that_no_head_has_are_named(scan, sizes):
    assert "is the unit right?" in said(scan, sizes)


def test_label_maps_and_masks_are_named(scan):
    labels = torch.from_numpy(toy_labels(np.array([3.0, -2, 5]), 6.0))
    for data in (labels, labels.float(), (labels > 0).to(torch.uint8), (labels == 2).float()):
        assert "label map" in said(data)
    assert "label map" not in said(scan.round())


def test_contrast_that_a_range_flattens_is_named(rng):
    data = torch.zeros(20, 20, 20, dtype=torch.float64)
    data[5:15, 5:15, 5:15] = torch.from_numpy(rng.uniform(300, 310, size=(10, 10, 10)))
    assert "contrast is lost" in said(data)
    assert said(data.masked_fill(data == 0, torch.nan)).count(".") == 1  # NaN alone


def test_values_far_beyond_the_range_are_counted(scan):
    scan[3, 4, 5] = scan[3, 4, 6] = 1e7
    assert "2 voxels lie 100 ranges or more beyond" in said(scan)
