"""The page on your own scans: its export is what it says, and its faults are known ones."""

import numpy as np
import pytest
import torch

from eval.evaluate import EXPERIMENT
from eval.pages import own_scan
from medil.grid import Grid
from medil.volume import Volume, load


def test_an_export_is_read_back_on_the_same_voxels(tmp_path):
    pytest.importorskip("pydicom", reason="needs the extra `dicom`")
    grid = Grid.from_spacing((9, 8, 7), (1.5, 1.0, 2.5)).rotated((1, 0.4, -0.3), 11.0)
    numbers = torch.from_numpy(np.random.default_rng(0).integers(0, 900, grid.shape)).float()
    own_scan.write_series(Volume(numbers, grid), tmp_path / "export")
    again = load(tmp_path / "export")
    assert again.grid.is_close(grid, tolerance_mm=1e-3)
    assert torch.equal(again.data.float(), numbers)


def brain():
    """A ball of 1 in air, and its mask."""
    grid = Grid.from_spacing((32, 32, 32), 3.0)
    away = torch.stack(torch.meshgrid(*[torch.arange(32) - 15.5] * 3, indexing="ij")).norm(dim=0)
    mask = away < 8
    return Volume(mask.float(), grid), mask


def test_scalp_is_a_bright_rim_that_leaves_the_brain_alone():
    volume, mask = brain()
    scalped = own_scan.with_scalp(volume, mask)
    assert torch.equal(scalped.data[mask], volume.data[mask])
    assert float(scalped.data.max()) == pytest.approx(2.0)
    assert 0 < float((scalped.data == 2).float().mean()) < 0.3


def test_a_wrong_header_halves_the_slices_and_no_voxel():
    volume, _ = brain()
    wrong = own_scan.with_wrong_slices(volume)
    assert wrong.grid.spacing_mm == (3.0, 3.0, 1.5) and torch.equal(wrong.data, volume.data)


def test_each_scan_has_its_line():
    volume, mask = brain()

    class Nothing:
        """Keeps the scan itself."""

        def encode(self, scan):
            return scan

        def decode(self, latent, grid):
            return Volume(latent.data * 0.9, grid)

    table = own_scan.missed_steps(
        Nothing(), volume, mask, {"brighter": Volume(volume.data * 2, volume.grid)}
    )
    assert list(table["Scan"]) == ["as prepared", "brighter"]
    assert table["PSNR in the brain (dB)"].to_numpy() == pytest.approx([20.0, 20.0], abs=1e-3)


def test_the_middle_keeps_its_voxels_and_their_places():
    volume, _ = brain()
    part = own_scan.middle(volume, (30.0, 1e3, 12.0))
    assert part.grid.shape == (10, 32, 4)
    assert torch.equal(part.data, volume.data[11:21, :, 14:18])
    assert part.grid.index_to_ras((0, 0, 0)) == pytest.approx(
        volume.grid.index_to_ras((11, 0, 14)).tolist()
    )


def test_a_score_sets_the_release_beside_linear_codes_of_its_size(tmp_path):
    grid = Grid.from_spacing((20, 20, 20), 1.0)
    numbers = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
    frame = own_scan.scored(Volume(torch.from_numpy(numbers), grid), "tiny", tmp_path)
    assert {"medil", "bspline"} <= set(frame["arm"])
    assert frame["subject"].unique().tolist() == ["middle"]
    assert "best linear code" in EXPERIMENT.sentences(frame)
