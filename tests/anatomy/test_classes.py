"""`medil.anatomy.classes`: tissue maps from other numberings, on other grids, in files."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

import medil
from medil.anatomy.classes import (
    CLASSES,
    NUMBER,
    LabelMap,
    SoftLabels,
    at_one_mm,
    classes_of,
    freesurfer_class,
    load_map,
)
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from tests.images import write_nifti


def ball_map(grid: Grid, radius_mm: float = 9.0) -> LabelMap:
    """White matter in cortex in CSF: nested balls around (0, 0, 0)."""
    distance = centres_mm(grid).norm(dim=-1)
    labels = torch.zeros(grid.shape, dtype=torch.uint8)
    for name, share in (("csf", 1.0), ("cortex", 0.8), ("white matter", 0.5)):
        labels[distance < share * radius_mm] = NUMBER[name]
    return LabelMap(labels, grid)


@pytest.fixture
def balls() -> LabelMap:
    return ball_map(Grid.from_spacing((24, 25, 26), 1.0, (-11.5, -12.0, -12.5)))


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "air"), (24, "csf"), (30, "csf"), (3, "cortex"), (1001, "cortex"), (12150, "cortex"),
        (2, "white matter"), (251, "white matter"), (77, "white matter"), (3030, "white matter"),
        (5001, "white matter"), (17, "deep grey"), (51, "deep grey"), (49, "bright deep grey"),
        (28, "bright deep grey"), (8, "cerebellar cortex"), (46, "cerebellar white matter"),
        (16, "brainstem"), (43, "lateral ventricles"), (5, "lateral ventricles"),
        (15, "third and fourth ventricle"), (507, "air"),
    ],
)  # fmt: skip
def test_freesurfer_numbers_have_a_class(number, name):
    assert freesurfer_class(number) == name


def test_our_own_numbers_and_those_of_fsl_stay(balls):
    assert (classes_of(balls.labels.numpy().astype(np.int32)) == balls.labels.numpy()).all()
    every = np.arange(len(CLASSES)).reshape(1, 1, -1)
    assert classes_of(every).tolist() == every.tolist()


def test_the_tissue_order_of_spm_is_recognised(balls):
    spm = np.array([0, 3, 1, 2])[balls.labels.numpy()]  # grey 1, white 2, CSF 3
    assert (classes_of(spm) == balls.labels.numpy()).all()


@pytest.mark.parametrize(
    ("order", "sentence"), [([0, 2, 3, 1], "order"), ([0, 0, 0, 0], "empty"), (None, "order")]
)
def test_what_cannot_be_told_is_refused(balls, rng, order, sentence):
    labels = rng.integers(4, size=(9, 9, 9))
    if order:
        labels = np.array(order)[balls.labels.numpy()]
    with pytest.raises(InputError, match=sentence):
        classes_of(labels)


def test_volumes_are_in_ml(balls):
    white_ml = balls.volumes_ml()["white matter"]
    assert white_ml == pytest.approx(4 / 3 * np.pi * 4.5**3 / 1000, rel=0.05)
    assert white_ml == balls.is_class("white matter").sum() / 1000


@pytest.mark.parametrize("spacing_mm", [(0.5, 0.5, 0.5), (0.8, 1.0, 1.25), (2.0, 1.0, 1.0)])
def test_at_one_mm_a_ball_keeps_its_place_and_size(spacing_mm):
    grid = Grid.from_spacing((40, 40, 40), 1.0, (-19.5, -19.5, -19.5)).covering(spacing_mm)
    own = ball_map(grid, 15.0)
    mapped = at_one_mm(own)
    assert mapped.grid.spacing_mm == pytest.approx((1, 1, 1))
    for name, ml in own.volumes_ml().items():
        assert mapped.volumes_ml()[name] == pytest.approx(ml, rel=0.04, abs=1e-9), name
    where = centres_mm(mapped.grid)[mapped.is_class("white matter")].mean(0)
    assert where.tolist() == pytest.approx([0, 0, 0], abs=0.1)


def test_a_map_on_an_oblique_grid_keeps_its_place(balls):
    oblique = balls.grid.rotated((1, 2, -0.5), 17.0).shifted((1.3, -0.4, 0.2))
    there = balls.resampled(oblique)
    assert (there.labels == ball_map(oblique).labels).float().mean() > 0.97
    assert balls.resampled(balls.grid) is balls


def test_a_finer_map_has_the_same_volumes_and_air_around_it(balls):
    finer = balls.resampled(balls.grid.resized([2 * n for n in balls.grid.shape]))
    for name, ml in balls.volumes_ml().items():
        assert finer.volumes_ml()[name] == pytest.approx(ml, rel=0.08), name
    assert SoftLabels(balls).at(torch.tensor([[99.0, 0, 0]])).tolist() == [NUMBER["air"]]


def test_voxels_that_coincide_keep_their_class(balls):
    start = (-2, 3, 1)
    block = balls.grid.crop(start, (9, 30, 12))
    there = balls.resampled(block)
    inside = balls.labels[:7, 3:, 1:13]
    assert torch.equal(there.labels[2:, : inside.shape[1]], inside)
    assert not there.labels[:2].any() and not there.labels[:, inside.shape[1] :].any()


def test_a_coarser_voxel_has_the_class_that_fills_most_of_it(balls):
    labels = torch.zeros(4, 2, 2, dtype=torch.uint8)
    labels[:2, :, 0] = labels[0, 0, 1] = NUMBER["cortex"]  # five of eight voxels
    pair = LabelMap(labels, Grid.from_spacing((4, 2, 2), 1.0))
    assert pair.resampled(pair.grid.with_spacing(2.0)).labels.flatten().tolist() == [2, 0]
    coarse = balls.resampled(balls.grid.with_spacing((1, 2, 3)))
    for name, ml in balls.volumes_ml().items():
        assert coarse.volumes_ml()[name] == pytest.approx(ml, rel=0.15), name


def test_a_map_takes_the_orientation_of_a_file(balls, tmp_path):
    placed, _ = balls.grid.reoriented("LPS")
    scan = write_nifti(
        tmp_path / "scan.nii", np.zeros(placed.shape, np.float32), placed.affine_vox2ras
    )
    image = nib.load(balls.save(tmp_path / "map.nii", like=medil.load(scan).source))
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert (image.header["qform_code"], image.header["sform_code"]) == (2, 1)
    assert torch.equal(medil.load(tmp_path / "map.nii").data, balls.labels)


def test_cropping_keeps_what_is_not_air(balls):
    cropped = balls.cropped(margin_vox=2)
    assert cropped.volumes_ml() == balls.volumes_ml()
    assert cropped.labels[2:-2].shape[0] == 18 and not cropped.labels[:2].any()
    with pytest.raises(InputError, match="all air"):
        LabelMap(torch.zeros_like(balls.labels), balls.grid).cropped()


def test_a_saved_map_names_its_classes_and_comes_back(balls, tmp_path):
    path = balls.save(tmp_path / "map.nii.gz")
    image = nib.load(path)
    assert image.header["intent_code"] == 1002 and image.get_data_dtype() == np.uint8
    assert b"4 deep grey" in image.header.extensions[0].get_content()
    again = load_map(path)
    assert again.volumes_ml() == balls.volumes_ml()
    assert (medil.load(path).data == balls.labels).all()
    with pytest.raises(InputError, match="exists"):
        balls.save(path)


def test_a_file_in_another_orientation_keeps_its_place(balls, tmp_path):
    freesurfer = np.array([0, 24, 3, 41])[balls.labels.numpy()].astype(np.int16)
    turned = freesurfer[::-1].transpose(1, 0, 2)
    affine = balls.grid.affine_vox2ras @ np.array(
        [[0, -1, 0, 23], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    mapped = load_map(write_nifti(tmp_path / "aseg.nii.gz", turned, affine))
    assert mapped.volumes_ml() == balls.volumes_ml()
    assert torch.equal(mapped.resampled(balls.grid).is_class("csf"), balls.is_class("csf"))


def test_labels_that_are_no_classes_are_refused(balls):
    with pytest.raises(InputError, match="from 0 to 10, not"):
        LabelMap(balls.labels + 8, balls.grid)
    with pytest.raises(InputError, match="cannot lie"):
        LabelMap(balls.labels[1:], balls.grid)
