"""Cohort: where tissue is in mm, what a voxel averages, what noise does, what a seed fixes."""

import itertools
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.nn import functional

from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.regrid import sample_trilinear
from medil.synth.anatomy import TISSUES, label_anatomy, refine_labels, tissue_anatomy
from medil.synth.appearance import draw_means, paint, smooth_noise
from medil.synth.cohort import native_grid, rician, scan, subject
from medil.synth.subject import (
    CohortConfig,
    _draw_warp,
    _lattice,
    cell_offsets_mm,
    draw_subject,
)
from tests.images import LABELS_ORIGIN_MM, toy_labels

VENTRICLE_MM = np.array([4.0, 6.0, 5.0])


@pytest.fixture(scope="module")
def label_path(tmp_path_factory):
    """The toy labels, stored LIA as SynthSeg's are."""
    affine = np.eye(4)
    affine[:3, 3] = LABELS_ORIGIN_MM
    image = nib.Nifti1Image(toy_labels(VENTRICLE_MM, 4.0), affine)
    path = tmp_path_factory.mktemp("labels") / "toy.nii.gz"
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt("LIA")
    )
    nib.save(image.as_reoriented(turn), path)
    return path


@pytest.fixture(scope="module")
def toy(label_path):
    """The anatomy of the toy labels."""
    return label_anatomy(label_path)


@pytest.fixture(scope="module")
def mni():
    """The MNI152 anatomy."""
    pytest.importorskip("nilearn")
    return tissue_anatomy()


def label_centroid_mm(anatomy, tissue: str) -> np.ndarray:
    """[3] mean position of a tissue's fine voxels."""
    here = anatomy.labels == anatomy.tissues.index(tissue)
    index = [  # fine maps are large: one axis at a time
        float((here.sum([a for a in range(3) if a != axis]) * torch.arange(n)).sum() / here.sum())
        for axis, n in enumerate(here.shape)
    ]
    return anatomy.grid.resized(here.shape).index_to_ras(np.array(index))


# Anatomies


def test_a_label_map_s_tissue_stays_where_it_was_in_mm(toy):
    brain = toy.labels > 0
    fine = toy.grid.resized(toy.labels.shape)
    np.testing.assert_allclose(centres_mm(fine)[brain].mean(0).numpy(), 0, atol=0.1)
    ventricles = toy.ventricles / toy.ventricles.sum()
    centre = (ventricles[..., None].double() * centres_mm(toy.grid)).sum((0, 1, 2))
    np.testing.assert_allclose(centre.numpy(), VENTRICLE_MM, atol=0.3)


def test_extra_cerebral_tissue_is_kept_only_on_request(toy, label_path):
    whole = label_anatomy(label_path, skull_stripped=False)
    assert "head" in whole.tissues and "head" not in toy.tissues
    assert label_centroid_mm(whole, "head")[0] == pytest.approx(-33 + 58.5, abs=0.05)


def test_refined_labels_keep_a_ball_s_volume_and_smooth_its_surface():
    i = np.indices((30, 31, 32)).transpose(1, 2, 3, 0) - [14.6, 15.1, 15.5]
    fine = refine_labels((np.linalg.norm(i, axis=-1) < 11.0).astype(np.int32))
    assert fine.shape == (60, 62, 64)
    assert int((fine == 1).sum()) / 8 == pytest.approx(4 / 3 * math.pi * 11.0**3, rel=0.02)
    radius = centres_mm(Grid.from_spacing(fine.shape, 0.5, np.array([-14.6, -15.1, -15.5]) - 0.25))
    far = torch.linalg.vector_norm(radius, dim=-1)
    assert far[fine == 1].max() - far[fine == 0].min() < 1.5  # blocks would give up to 1.7


def test_mni152_has_tissue_where_the_atlas_has_it(mni):
    fine = mni.grid.resized(mni.labels.shape)
    index = {
        "white matter": (26.0, -20.0, 34.0),  # right corona radiata
        "cerebellar cortex": (30.0, -70.0, -50.0),
        "air": (0.0, -60.0, 88.0),
    }
    for tissue, point_mm in index.items():
        i, j, k = np.rint(fine.ras_to_index(np.array(point_mm))).astype(int)
        assert mni.tissues[int(mni.labels[i, j, k])] == tissue, point_mm
    litres = float((mni.labels > 1).sum()) / 8e6
    assert 1.2 < litres < 2.0
    assert abs(label_centroid_mm(mni, "white matter")[0]) < 1.5  # left and right alike


# Drawing


def test_contrast_is_that_of_t1w_images():
    names = ("white matter", "pallidum", "thalamus", "putamen", "cortex", "csf", "air")
    draws = np.array([draw_means(names, np.random.default_rng(k)).numpy() for k in range(200)])
    assert (np.diff(draws.mean(0)) < 0).all()
    assert (draws[:, 0] > draws[:, 4]).all() and (draws[:, 4] > draws[:, 5]).all()
    assert (draws[:, 6] == 0).all() and TISSUES["air"] == (0.0, 0.0)


def test_smooth_noise_has_unit_variance(rng):
    noise = smooth_noise((60, 61, 62), 2.0, rng)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)
    near = float((noise[1:] * noise[:-1]).mean() / noise.square().mean())
    assert near == pytest.approx(math.exp(-1 / 16), abs=0.02)  # exp(-d^2 / 4 sigma^2)


@pytest.mark.parametrize("index", range(4))
def test_a_warp_does_not_fold(toy, index):
    drawn = draw_subject(toy, 3, index)
    source_mm = drawn.fields[0, :3]
    slopes = [
        torch.stack(torch.gradient(s, spacing=drawn.lattice.spacing_mm[0])) for s in source_mm
    ]
    inner = tuple(slice(3, -3) for _ in range(3))
    jacobian = torch.stack(slopes).permute(2, 3, 4, 0, 1)[inner]
    assert torch.linalg.det(jacobian).min() > 0.05


def test_the_same_seed_and_index_give_the_same_bits(toy):
    one, again, other = (subject(toy, 5, i) for i in (0, 0, 1))
    assert one.grid == again.grid and torch.equal(one.data, again.data)
    assert one.grid != other.grid
    shared = Grid.from_spacing((30, 31, 32), 1.5, (-22.0, -23.0, -24.0))
    apart = subject(toy, 5, 0, grid=shared).data - subject(toy, 5, 1, grid=shared).data
    assert apart.abs().mean() > 0.02
    moved = subject(toy, 6, 0, grid=shared).data - subject(toy, 5, 0, grid=shared).data
    assert moved.abs().mean() > 0.02


def test_drawing_leaves_the_global_generators_alone(toy):
    torch.manual_seed(0), np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    subject(toy, 5, 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


# Scanning


def test_a_coarse_voxel_is_the_mean_of_the_fine_voxels_in_it(toy):
    drawn = draw_subject(toy, 1, 2)
    fine = Grid.from_spacing((48, 50, 54), (1.0, 1.0, 1.0), (-24.0, -25.0, -26.0))
    coarse = fine.resized((24, 25, 18))  # 2 x 2 x 3 mm
    pooled = functional.avg_pool3d(drawn.render(fine)[None, None], (2, 2, 3))[0, 0]
    direct = drawn.render(coarse)
    assert float((pooled - direct).abs().mean()) < 2e-3
    assert float((pooled - direct).abs().max()) < 0.1


def test_an_oblique_grid_sees_the_same_head(toy):
    drawn = draw_subject(toy, 1, 2)
    straight = Grid.from_spacing((60, 64, 58), 1.0, (-30.0, -32.0, -29.0))
    oblique = straight.rotated((1.0, -2.0, 0.7), 25.0)
    centres = []
    for grid in (straight, oblique):
        values = drawn.render(grid).double()
        centres.append((values[..., None] * centres_mm(grid)).sum((0, 1, 2)) / values.sum())
    np.testing.assert_allclose(centres[0].numpy(), centres[1].numpy(), atol=0.02)
    smooth = drawn.render(straight, cell=3.0)[None, None]
    back = sample_trilinear(smooth, straight, centres_mm(oblique))[0, 0]
    inside = slice(12, -12), slice(12, -12), slice(12, -12)
    gap = (back - drawn.render(oblique, cell=3.0))[inside]
    assert float(gap.abs().mean()) < 0.012


def test_quadrature_points_fill_the_cell_evenly(oblique_grid):
    offsets_mm = cell_offsets_mm(oblique_grid, 1.0, 0.75).numpy()
    assert len(offsets_mm) == 2 * 2 * 4
    np.testing.assert_allclose(offsets_mm.mean(0), 0, atol=1e-12)
    along = offsets_mm @ oblique_grid.directions  # mm along i, j, k
    np.testing.assert_allclose(np.unique(along[:, 2].round(6)), [-1.125, -0.375, 0.375, 1.125])


@pytest.mark.parametrize("index", range(6))
def test_a_native_grid_holds_the_head_at_the_spacing_asked_for(toy, index):
    config = CohortConfig(isotropic_share=0.0, in_plane_mm=(0.8, 1.0), slice_mm=(2.5, 3.0))
    drawn = draw_subject(toy, 2, 0)
    grid = native_grid(drawn, 2, index, config)
    thin, thick = sorted(grid.spacing_mm)[:2], max(grid.spacing_mm)
    assert thin[0] == pytest.approx(thin[1]) and 0.8 <= thin[0] <= 1.0 and 2.5 <= thick <= 3.0
    assert (grid.bounds_mm[0] <= drawn.head_mm[0] - 6).all()
    assert (grid.bounds_mm[1] >= drawn.head_mm[1] + 6).all()
    isotropic = native_grid(drawn, 2, index, CohortConfig(isotropic_share=1.0))
    assert np.ptp(isotropic.spacing_mm) < 1e-9 and 0.7 <= isotropic.spacing_mm[0] <= 2.0
    assert grid.orientation == "RAS"


def test_tilt_turns_the_scan_axes(toy):
    drawn = draw_subject(toy, 2, 0)
    straight = native_grid(drawn, 2, 0)
    tilted = native_grid(drawn, 2, 0, CohortConfig(max_tilt_deg=12.0))
    assert not tilted.is_parallel_to(straight)
    cosine = (np.trace(straight.directions.T @ tilted.directions) - 1) / 2
    assert 0 < np.degrees(np.arccos(cosine)) <= 12.0


def test_values_are_finite_near_one_and_zero_outside(toy):
    volume = subject(toy, 8, 1)
    assert volume.data.dtype == torch.float32 and torch.isfinite(volume.data).all()
    assert float(volume.data.min()) >= 0 and float(volume.data.max()) < 1.6
    assert float(volume.data[0].abs().max()) == 0 and float((volume.data > 0).float().mean()) > 0.1


def test_background_noise_has_the_rician_mean_and_spread(toy):
    sigma = 0.03
    config = CohortConfig(noise=(sigma, sigma), background_noise=True)
    grid = Grid.from_spacing((60, 60, 20), 1.0, (100.0, 100.0, 100.0))  # air
    air = scan(draw_subject(toy, 4, 0), grid, 4, 0, config)
    assert float(air.mean()) == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.01)
    assert float(air.std()) == pytest.approx(sigma * math.sqrt(2 - math.pi / 2), rel=0.01)


def test_a_strong_signal_sees_gaussian_noise(rng):
    noisy = rician(torch.full((50, 50, 50), 0.8), 0.02, rng)
    assert float(noisy.mean()) == pytest.approx(0.8 + 0.02**2 / 1.6, abs=2e-4)
    assert float(noisy.std()) == pytest.approx(0.02, rel=0.02)


def test_bias_multiplies_and_a_flat_scan_has_none(toy):
    grid = Grid.from_spacing((40, 40, 40), 1.0, (-20.0, -20.0, -20.0))
    quiet, biased = (
        draw_subject(toy, 9, 0, CohortConfig(bias=(b, b))).render(grid) for b in (0.0, 0.3)
    )
    ratio = (biased / quiet)[quiet > 0.1].log()
    assert 0.02 < float(ratio.std()) < 0.6
    steps = (biased / quiet).log().nan_to_num(0).diff(dim=0)[(quiet > 0.1)[1:] & (quiet > 0.1)[:-1]]
    assert float(steps.abs().max()) < 0.08  # smooth


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"spacing_mm": (0.0, 1.0)}, "spacing_mm"),
        ({"slice_mm": (3.0, 2.0)}, "slice_mm"),
        ({"isotropic_share": 1.5}, "isotropic_share"),
    ],
)
def test_impossible_settings_say_why(bad, word):
    with pytest.raises(InputError, match=word):
        CohortConfig(**bad)


def test_a_label_map_that_is_none_says_so(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        label_anatomy(tmp_path / "missing.nii.gz")
    path, labels = tmp_path / "labels.nii.gz", np.full((5, 6, 7), 3, np.float32)
    part, hole = labels + 0.5, np.where(np.arange(7) == 2, np.nan, labels)
    for values, affine, unit, words in (
        (0 * labels, np.eye(4), "mm", "no FreeSurfer brain label"),
        (part, np.eye(4), "mm", "other values than 0, 1, 2"),
        (-labels, np.eye(4), "mm", "other values than 0, 1, 2"),
        (hole, np.eye(4), "mm", "NaN or Inf"),
        (labels, np.diag([1.0, 1, 0, 1]), "mm", "singular"),
        (labels, np.eye(4), "meter", "1000 x 1000 x 1000 mm, .* the right unit"),
        (labels, np.eye(4), "micron", "0.001 x 0.001 x 0.001 mm"),
    ):
        image = nib.Nifti1Image(values.astype(np.float32), np.eye(4))
        image.set_sform(affine, 1)
        image.header.set_xyzt_units(unit)
        nib.save(image, path)
        with pytest.raises(InputError, match=words):
            label_anatomy(path)


def test_a_label_map_in_another_unit_is_the_same_anatomy(label_path, toy, tmp_path):
    image = nib.load(label_path)
    image.header.set_xyzt_units("meter")
    image.set_sform(np.diag([1e-3, 1e-3, 1e-3, 1]) @ image.affine, 1)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "metres.nii.gz")
    again = label_anatomy(tmp_path / "metres.nii.gz")
    assert again.grid.is_close(toy.grid) and torch.equal(again.labels, toy.labels)


# In slabs, and on any device


def test_a_head_rendered_in_slabs_is_the_whole(toy, monkeypatch):
    drawn = draw_subject(toy, 1, 2)
    box = Grid.from_spacing((11, 9, 10), (1.0, 1.0, 3.0), (-15.0, 3.0, -9.0))
    boxes = [box, box.rotated((1.0, 2.0, 0.5), 20.0), box.shifted((90.0, 90.0, 90.0))]  # air
    whole = [drawn.render(b, cell=1.3) for b in boxes]
    monkeypatch.setattr("medil.synth.subject.MOST_VOXELS", 300)
    for values, b in zip(whole, boxes, strict=True):
        assert torch.equal(drawn.render(b, cell=1.3), values)


def test_what_is_drawn_stays_on_the_device_of_its_anatomy(toy, rng):
    """The meta device computes shapes alone, and refuses tensors of any other device."""
    elsewhere = toy.to("meta")
    assert {elsewhere.labels.device.type, elsewhere.inside.device.type} == {"meta"}
    painted, darkest = paint(elsewhere, rng, (0.1, 0.3), (0.01, 0.02), (0.01, 0.02))
    assert painted.device.type == "meta" and painted.shape == toy.labels.shape and darkest > 0
    source_mm, _ = _draw_warp(elsewhere, _lattice(toy), rng, CohortConfig())
    assert source_mm.device.type == "meta"
    head = draw_subject(toy, 1, 2).to("meta")
    points_mm = torch.zeros(5, 3, dtype=torch.float64, device="meta")
    assert head.at(points_mm).device.type == "meta"
    assert rician(head.at(points_mm), 0.02, rng).device.type == "meta"
    assert head.to("meta").facts == head.facts and head.lattice == draw_subject(toy, 1, 2).lattice


def test_an_average_brain_is_folded_on_its_own_device(mni, rng):
    painted, _ = paint(mni.to("meta"), rng, (0.1, 0.3), (0.01, 0.02), (0.01, 0.02))
    assert painted.device.type == "meta" and painted.shape == mni.labels.shape


@pytest.mark.gpu
def test_a_head_drawn_on_a_gpu_is_the_same_to_rounding(toy):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    grid = Grid.from_spacing((30, 31, 32), 1.5, (-22.0, -23.0, -24.0))
    here, there = (scan(draw_subject(toy.to(d), 5, 1), grid, 5, 1) for d in ("cpu", "cuda"))
    assert there.device.type == "cuda"
    far = (here - there.cpu()).abs() > 1e-3  # where a rounded value crosses an outline
    assert float(far.float().mean()) < 1e-3


# Against a real scan


def spectrum_db(data: np.ndarray) -> np.ndarray:
    """Power of 32^3 blocks inside the brain, in bands of cycles per voxel, in dB."""
    data = data / np.percentile(data[data > 0], 99.5)
    n, window = 32, np.hanning(34)[1:-1]
    window = window[:, None, None] * window[:, None] * window
    frequency = np.linalg.norm(np.stack(np.meshgrid(*[np.fft.fftfreq(n)] * 3)), axis=0)
    power = []
    for corner in np.ndindex(*[(m - n) // 16 + 1 for m in data.shape]):
        block = data[tuple(slice(16 * c, 16 * c + n) for c in corner)]
        if (block > 0).mean() > 0.98:
            power.append(np.abs(np.fft.fftn((block - block.mean()) * window)) ** 2)
    mean = np.mean(power, axis=0) / (window**2).sum()
    edges = [0.06, 0.12, 0.2, 0.3, 0.4, 0.5]
    bands = [(frequency >= a) & (frequency < b) for a, b in itertools.pairwise(edges)]
    return np.array([10 * np.log10(mean[band].mean()) for band in bands])


def test_subjects_have_a_real_scan_s_spectrum(mirror):
    real = nib.load(mirror / "open_ms_t1/cross_sectional_patient07_T1_MNI.nii.gz").get_fdata()
    anatomy = label_anatomy(mirror / "synthseg_labels/training_seg_02.nii.gz")
    drawn = draw_subject(anatomy, 11, 1)
    box = Grid.from_spacing((96, 96, 72), 1.0, drawn.head_mm.mean(0) - (48, 48, 36))
    gap = spectrum_db(scan(drawn, box, 11, 1).numpy()) - spectrum_db(real[40:140, 50:170, 40:120])
    assert np.abs(gap).max() < 5.0, np.round(gap, 1)
