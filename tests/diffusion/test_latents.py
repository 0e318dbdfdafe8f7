"""The training set of latents: where its box lies in mm, what is drawn and encoded once."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from medil.anatomy.classes import BRAIN, LabelMap
from medil.config import preset
from medil.diffusion import latents as latentset
from medil.diffusion.latents import (
    draw_heads,
    encode_heads,
    head_spacing_mm,
    latent_box,
    read_head,
)
from medil.errors import InputError
from medil.grid import centres_mm
from medil.model.autoencoder import MedIL
from medil.synth.attributes import ATTRIBUTES
from medil.synth.box import box_grid
from tests.images import LABELS_ORIGIN_MM, toy_labels, write_nifti
from tests.synth.test_attributes import VENTRICLE_MM


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A toy head, drawn at 4 mm: its file, and how it was drawn."""
    folder, affine = tmp_path_factory.mktemp("heads"), np.eye(4)
    affine[:3, 3] = LABELS_ORIGIN_MM
    labels = write_nifti(folder / "toy.nii.gz", toy_labels(VENTRICLE_MM, 7.0), affine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latentset, "label_map_paths", lambda split: [labels])
        (path,) = draw_heads("train", [0], folder / "drawn", spacing_mm=4.0)
        again = path.stat().st_mtime_ns
        assert draw_heads("train", [0], folder / "drawn", spacing_mm=4.0) == [path]
        assert path.stat().st_mtime_ns == again  # not drawn again
    return path


# The box


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0, 4.0, 32 / 36, 32 / 17])
def test_the_box_is_the_same_in_mm_for_every_voxel_size(spacing_mm):
    grid = box_grid(spacing_mm)
    np.testing.assert_allclose(grid.bounds_mm, [[-80, -96, -80], [80, 96, 80]], atol=1e-9)
    np.testing.assert_allclose(grid.spacing_mm, spacing_mm)
    first, last = grid.index_to_ras(np.zeros(3)), grid.index_to_ras(np.array(grid.shape) - 1)
    np.testing.assert_allclose(first - spacing_mm / 2, (-80, -96, -80), atol=1e-9)
    np.testing.assert_allclose(last + spacing_mm / 2, (80, 96, 80), atol=1e-9)
    assert grid.orientation == "RAS"


@pytest.mark.parametrize("spacing_mm", [0.7, 3.0, 33.0, 100.0])
def test_voxels_that_do_not_fill_the_box_are_refused(spacing_mm):
    with pytest.raises(InputError, match="do not fill a box"):
        box_grid(spacing_mm)


@pytest.mark.parametrize("pitch_mm", [2.0, 3.0, 4.0, 5.3, 8.0])
def test_latents_of_every_pitch_hold_the_box_in_whole_blocks_of_cells(pitch_mm):
    grid, beyond_mm = latent_box(pitch_mm), 8 * pitch_mm
    np.testing.assert_allclose(grid.spacing_mm, pitch_mm)
    np.testing.assert_allclose(grid.centre_mm, 0, atol=1e-9)
    assert not any(n % 8 for n in grid.shape)
    for side_mm, box_mm in zip(grid.extent_mm, (160, 192, 160), strict=True):
        assert box_mm - 1e-6 <= side_mm < box_mm + beyond_mm
    if pitch_mm in (2.0, 4.0):  # where it divides the box
        assert grid == box_grid(pitch_mm)


@pytest.mark.parametrize("pitch_mm", [0.0, -4.0, 161.0, float("nan")])
def test_latent_cells_that_do_not_fit_the_box_are_refused(pitch_mm):
    with pytest.raises(InputError, match="do not fit the box"):
        latent_box(pitch_mm)


def test_voxel_sizes_follow_from_seed_and_index_and_fill_the_box():
    sizes = [head_spacing_mm(5000, k) for k in range(300)]
    assert sizes == [head_spacing_mm(5000, k) for k in range(300)]
    assert sum(size == 1.0 for size in sizes) / 300 == pytest.approx(0.6 + 0.4 / 21, abs=0.09)
    assert min(sizes) >= 32 / 36 and max(sizes) <= 2.0
    extents_mm = [box_grid(size).extent_mm for size in set(sizes)]
    np.testing.assert_allclose(extents_mm, [(160, 192, 160)] * len(extents_mm))


# Heads


def test_a_drawn_head_lies_in_the_middle_of_the_box(head):
    drawn = read_head(head)
    assert drawn.grid == box_grid(4.0) and drawn.data.shape == drawn.grid.shape
    bright = centres_mm(drawn.grid)[drawn.data > 0.1]
    middle_mm = (bright.min(0).values + bright.max(0).values) / 2
    np.testing.assert_allclose(middle_mm, 0, atol=4.0)  # a voxel
    extent_mm = bright.max(0).values - bright.min(0).values
    assert (extent_mm > 20).all() and (extent_mm < 70).all()
    assert float(drawn.data[0].abs().max()) == 0.0  # air at the faces


def test_the_map_of_a_drawn_head_has_its_ventricles_and_ends_where_its_scan_does(head):
    drawn = read_head(head)
    tissues = LabelMap(drawn.labels, box_grid(1.0))
    sizes_ml = tissues.volumes_ml()
    assert sizes_ml["lateral ventricles"] == pytest.approx(drawn.known["ventricles"], rel=0.15)
    brain_ml = sum(sizes_ml[name] for name in BRAIN)
    assert brain_ml == pytest.approx(drawn.known["brain"], rel=0.15)
    at_1_mm = torch.nn.functional.interpolate(drawn.data[None, None], scale_factor=4)[0, 0]
    torch.testing.assert_close(drawn.labels > 0, at_1_mm > 0)


def test_a_drawn_head_says_what_is_known_of_it(head):
    drawn = read_head(head)
    assert tuple(drawn.known) == tuple(ATTRIBUTES) and drawn.known["spacing"] == 4.0
    assert 0.5 < drawn.known["ventricles"] < drawn.known["brain"] < 40
    assert drawn.known["contrast"] > 1 and "toy" in drawn.source


def test_without_label_maps_heads_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("medil.data.manifest.available", lambda entry: False)
    with pytest.raises(InputError, match="MEDIL_DATA_MIRROR"):
        draw_heads("train", [0], tmp_path)


# Latents


class Averager:
    """An autoencoder whose latent is the mean of each 8 mm cell; counts what it encodes."""

    config = SimpleNamespace(latent_spacing_mm=8.0)
    device = torch.device("cpu")

    def __init__(self, weights_id: str = "0123") -> None:
        self.weights_id, self.encoded = weights_id, 0

    def encode_tensor(self, x, grid, latent_grid):
        self.encoded += 1
        assert latent_grid == latent_box(8.0)
        mean = functional.avg_pool3d(x, round(8 / grid.spacing_mm[0]))
        mean = functional.pad(mean, (2, 2, 0, 0, 2, 2))  # beyond the box, which holds 20 cells
        return mean, torch.zeros_like(mean)


def test_heads_are_encoded_once_for_each_autoencoder(head, tmp_path):
    model = Averager()
    first = encode_heads(model, [head], tmp_path)
    again = encode_heads(model, [head], tmp_path)
    assert model.encoded == 1
    assert torch.equal(first.latents, again.latents) and torch.equal(first.known, again.known)
    other = Averager("4567")
    assert encode_heads(other, [head], tmp_path).weights_id == "4567" and other.encoded == 1


def test_latents_lie_on_the_box_and_keep_what_is_known(head, tmp_path):
    found, drawn = encode_heads(Averager(), [head], tmp_path), read_head(head)
    assert found.grid == latent_box(8.0) and found.latents.shape == (1, 1, 24, 24, 24)
    expected = functional.avg_pool3d(drawn.data[None], 2)
    torch.testing.assert_close(found.latents[0, :, 2:-2, :, 2:-2], expected, atol=1e-3, rtol=0)
    known = [drawn.known[name] for name in ATTRIBUTES]
    np.testing.assert_allclose(found.known[0].numpy(), known, rtol=1e-6)
    assert found.weights_id == "0123"


def test_maps_come_with_the_latents_when_they_are_wanted(head, tmp_path):
    drawn = read_head(head)
    assert encode_heads(Averager(), [head], tmp_path).labels == ()
    found = encode_heads(Averager(), [head], tmp_path, with_maps=True)
    assert torch.equal(found.labels[0], drawn.labels) and found.ages == (None,) and found.real == 0
    both = found.with_scans(replace(found, ages=(30.0,), real=1))
    assert len(both.latents) == len(both.labels) == len(both.known) == 2
    assert both.ages == (None, 30.0) and both.real == 1
    with pytest.raises(InputError, match="different autoencoders"):
        found.with_scans(replace(found, weights_id="4567"))


def test_latents_of_a_network_are_kept_however_they_lie_in_memory(head, tmp_path):
    torch.manual_seed(0)
    model = MedIL(preset("test").model).eval()
    torch.nn.init.normal_(model.encoder.out.weight, std=0.1)  # it starts silent
    model.weights_id = "0123"
    (found,) = encode_heads(model, [head], tmp_path).latents
    drawn = read_head(head)
    with torch.inference_mode():
        mean, _ = model.encode_tensor(drawn.data[None, None], drawn.grid, box_grid(4.0))
    torch.testing.assert_close(found, mean[0], atol=2e-3, rtol=2e-3)


def test_an_autoencoder_without_weights_is_refused(head, tmp_path):
    with pytest.raises(InputError, match="has none"):
        encode_heads(Averager(""), [head], tmp_path)
