"""Real scans in the box: where they lie, what is known of them, and that nothing is resampled."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medil.anatomy.classes import NUMBER, LabelMap
from medil.data.manifest import entries
from medil.diffusion import scans
from medil.diffusion.latents import latent_box
from medil.diffusion.scans import box_around, brain_middle_mm, encode_scans, padded_to
from medil.errors import InputError
from medil.grid import Grid
from medil.synth.box import box_grid
from medil.volume import Volume

SPACING_MM = (2.0, 2.0, 3.0)


def volume(tilt_deg: float = 0.0, shape=(100, 120, 70)) -> Volume:
    """A bright block with a dark core, off the middle of its grid."""
    grid = Grid.from_spacing(shape, SPACING_MM, (-70.0, -100.0, -60.0))
    grid = grid.rotated((1.0, 2.0, 3.0), tilt_deg)
    data = torch.zeros(shape)
    data[30:70, 20:80, 10:40] = 0.5
    data[45:55, 40:60, 20:30] = 1.0
    return Volume(data, grid)


@pytest.mark.parametrize("tilt_deg", [0.0, 12.0])
def test_a_box_lies_along_a_scan_around_its_brain(tilt_deg):
    scan = volume(tilt_deg)
    middle_mm = brain_middle_mm(scan)
    np.testing.assert_allclose(scan.grid.ras_to_index(middle_mm), (49.5, 49.5, 24.5), atol=1e-6)
    box = box_around(scan.grid, middle_mm)
    assert box.shape == box_grid(1.0).shape
    np.testing.assert_allclose(box.spacing_mm, 1.0)
    np.testing.assert_allclose(box.centre_mm, middle_mm, atol=1e-9)
    np.testing.assert_allclose(box.directions, scan.grid.directions, atol=1e-9)


def test_voxels_in_the_box_are_the_scans_own_and_air_where_it_ends():
    scan = volume()
    grid, x = padded_to(scan, box_around(scan.grid, brain_middle_mm(scan)))
    np.testing.assert_allclose(grid.spacing_mm, SPACING_MM)
    assert x.shape == grid.shape
    index = scan.grid.ras_to_index(grid.index_to_ras(np.zeros(3)))
    np.testing.assert_allclose(index, np.rint(index), atol=1e-6)  # the scan's own voxels
    assert float((x > 0).sum()) == float((scan.data > 0).sum())  # all of the brain
    short = replace(scan, data=scan.data[:, :, :42], grid=scan.grid.crop((0, 0, 0), (100, 120, 42)))
    box = box_around(short.grid, brain_middle_mm(short))
    grid, x = padded_to(short, box)
    assert x.shape == grid.shape and float(x[:, :, -1].max()) == 0.0
    corners = box.ras_to_index(grid.corners_mm)
    assert corners.min() > -0.5 - 1e-6 and (corners.max(0) < np.array(box.shape) - 0.5 + 1e-6).all()


class Autoencoder:
    """Its latent is the mean of what lies in a cell of 8 mm, where the scan has voxels."""

    config = SimpleNamespace(latent_spacing_mm=8.0)
    device, weights_id = torch.device("cpu"), "0123"

    def __init__(self) -> None:
        self.seen = []

    def encode_tensor(self, x, grid, latent_grid):
        self.seen.append((x, grid, latent_grid))
        mean = torch.full((1, 1, *latent_grid.shape), float(x.sum()))
        return mean, torch.zeros_like(mean)


def segmented(scan: Volume, network) -> LabelMap:
    """White matter where it is bright, cortex where it is not dark."""
    labels = torch.where(scan.data > 0.75, NUMBER["white matter"], 0)
    labels = torch.where((scan.data > 0.1) & (labels == 0), NUMBER["cortex"], labels)
    return LabelMap(labels.to(torch.uint8), scan.grid)


@pytest.fixture
def one_scan(monkeypatch):
    """The manifest's first train scan is the block of `volume`."""
    entry = replace(entries("ds002748", "train")[0], age=33.0)
    monkeypatch.setattr(scans, "local_entries", lambda name, split: [entry])
    monkeypatch.setattr(scans, "fetch", lambda entry: None)
    monkeypatch.setattr(scans, "load", lambda path: volume())
    monkeypatch.setattr(scans, "segment", segmented)


def test_copies_are_mirrored_in_turn_and_each_has_its_own_phase(one_scan, tmp_path):
    model, network = Autoencoder(), SimpleNamespace(weights_id="abcdef")
    found = encode_scans(model, network, tmp_path)
    again = encode_scans(model, network, tmp_path)
    assert len(model.seen) == 2 and torch.equal(found.latents, again.latents)
    assert found.real == 2 and found.ages == (33.0, 33.0) and found.grid == latent_box(8.0)
    (plain, first, _), (mirrored, second, _) = model.seen
    assert plain.sum() == mirrored.sum()
    assert not np.allclose(first.index_to_ras(np.zeros(3)), second.index_to_ras(np.zeros(3)))
    phases = [
        np.mod(latent_grid.ras_to_index(grid.index_to_ras(np.zeros(3))), 1)
        for _, grid, latent_grid in model.seen
    ]
    assert np.abs(phases[0] - phases[1]).max() > 0.01
    contrast, spacing = found.known[0, 2].item(), found.known[0, 3].item()
    assert contrast == pytest.approx(2.0, rel=0.03) and spacing == pytest.approx(12 ** (1 / 3))
    brain_ml = found.known[0, 1].item()
    assert brain_ml == pytest.approx(40 * 60 * 30 * 12 / 1000, rel=0.03)


def test_without_scans_there_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(scans, "local_entries", lambda name, split: [])
    with pytest.raises(InputError, match="MEDIL_DATA_MIRROR"):
        encode_scans(Autoencoder(), SimpleNamespace(weights_id="abcdef"), tmp_path)
