"""`medil sample` with an anatomy-first model: labelled scans, own maps, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

import medil
from medil.anatomy.classes import LabelMap, classes_of, load_map
from medil.config import PRESETS
from medil.diffusion.appearance_training import save_appearance
from medil.diffusion.config import APPEARANCE_PRESETS
from medil.model.autoencoder import MedIL
from medil.model.weights import load_model, save_weights
from tests.anatomy.conftest import toy_packed
from tests.appearance import labels_file, random_flow
from tests.images import refused

click = pytest.importorskip("click", reason="click (extra cli) is not installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A flow and, beside it, its autoencoder."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = MedIL(PRESETS["test"].model)
    autoencoder = save_weights(model, PRESETS["test"], folder / "autoencoder.safetensors", {})
    flow = random_flow(load_model(autoencoder).weights_id)
    path = save_appearance(flow, APPEARANCE_PRESETS["test"], folder / "weights.safetensors", {})
    return SimpleNamespace(flow=path, autoencoder=autoencoder)


@pytest.fixture
def sample(run_medil, weights, tmp_path, monkeypatch):
    """`medil sample` with the test's own weights and a toy anatomy, into a folder."""
    packed = toy_packed()
    monkeypatch.setattr("medil.anatomy.draw.packed_maps", lambda: (packed,))

    def run_it(*options, out="out"):
        common = "--weights", weights.flow, "--steps", 2, "-o", tmp_path / out
        return run_medil("sample", *common, *options)

    return run_it


def test_every_scan_has_its_map_beside_it(sample, tmp_path):
    code, out, err = sample(
        "--condition", "ventricles=6", "--save-map", "--spacing", 2, 2, 2,
        "--also-spacing", 1, 1, 4, "--latents",
    )  # fmt: skip
    assert (code, out, err) == (0, "", "")
    folder = tmp_path / "out"
    assert sorted(p.name for p in folder.iterdir()) == [
        "sample_0000.nii.gz", "sample_0000.safetensors", "sample_0000_1x1x4mm.nii.gz",
        "sample_0000_1x1x4mm_map.nii.gz", "sample_0000_map.nii.gz",
    ]  # fmt: skip
    for name in ("sample_0000", "sample_0000_1x1x4mm"):
        scan, labels = (nib.load(folder / f"{name}{end}.nii.gz") for end in ("", "_map"))
        assert scan.shape == labels.shape and labels.get_data_dtype() == np.uint8
        np.testing.assert_allclose(scan.affine, labels.affine, atol=1e-6)
        assert (scan.header["qform_code"], scan.header["sform_code"]) == (1, 1)
        assert labels.header["intent_code"] == 1002 and scan.header["intent_code"] == 0
        assert b"9 lateral ventricles" in labels.header.extensions[0].get_content()
        inside = np.asarray(labels.dataobj) > 0
        np.testing.assert_array_equal(scan.get_fdata() != 0, inside)
    latent = medil.Latent.load(folder / "sample_0000.safetensors")
    assert latent.native.spacing_mm == (2, 2, 2) and latent.grid.spacing_mm == (4, 4, 4)


def test_a_saved_map_comes_back_and_counts_what_was_asked_for(sample, tmp_path):
    assert sample("--condition", "ventricles=6", "--save-map", "--contrast", 1.5)[0] == 0
    saved = load_map(tmp_path / "out" / "sample_0000_map.nii.gz")
    assert saved.volumes_ml()["lateral ventricles"] == pytest.approx(6, rel=0.01)
    labels = medil.load(tmp_path / "out" / "sample_0000_map.nii.gz")
    assert torch.equal(saved.resampled(labels.grid).labels, labels.data)


def test_a_seed_gives_the_same_sample_wherever_it_stands(sample, tmp_path):
    path = labels_file(tmp_path)
    coarse = "--map", path, "--spacing", 3, 3, 3
    assert sample("--n", 2, "--seed", 3, *coarse, out="a")[0] == 0
    assert sample("--seed", 4, *coarse, out="b")[0] == 0
    three, four = (medil.load(tmp_path / "a" / f"sample_000{k}.nii.gz").data for k in (3, 4))
    assert torch.equal(medil.load(tmp_path / "b" / "sample_0004.nii.gz").data, four)
    assert (three - four).abs().max() > 1e-2


def test_an_own_map_gives_scans_on_its_grid_in_the_orientation_of_its_file(sample, tmp_path):
    path = labels_file(tmp_path)
    assert sample("--map", path, "--save-map", "--also-spacing", 2, 2, 2)[0] == 0
    own, folder = nib.load(path), tmp_path / "out"
    scan, labels = (nib.load(folder / f"sample_0000{end}.nii.gz") for end in ("", "_map"))
    for image in (scan, labels):
        assert image.shape == own.shape
        np.testing.assert_allclose(image.affine, own.affine, atol=1e-5)
        assert (image.header["qform_code"], image.header["sform_code"]) == (2, 1)
    classes = classes_of(np.asarray(own.dataobj).astype(np.int32))
    np.testing.assert_array_equal(np.asarray(labels.dataobj), classes)
    np.testing.assert_array_equal(scan.get_fdata() != 0, classes > 0)
    coarse = [nib.load(folder / f"sample_0000_2x2x2mm{end}.nii.gz") for end in ("", "_map")]
    assert nib.aff2axcodes(coarse[0].affine) == ("L", "P", "S")
    assert coarse[0].shape == coarse[1].shape
    np.testing.assert_allclose(coarse[0].affine, coarse[1].affine, atol=1e-6)


def test_like_a_scan_takes_its_segmentation_and_its_grid(sample, tmp_path, monkeypatch):
    path = labels_file(tmp_path)
    assert sample("--map", path, "--spacing", 2, 2, 3)[0] == 0
    scan = tmp_path / "out" / "sample_0000.nii.gz"
    monkeypatch.setattr("medil.diffusion.anatomies.segment", lambda volume: load_map(path))
    assert sample("--like", scan, "--save-map", out="like")[0] == 0
    before, after = (nib.load(p) for p in (scan, tmp_path / "like" / "sample_0000.nii.gz"))
    assert before.shape == after.shape
    np.testing.assert_allclose(before.affine, after.affine, atol=1e-5)
    labels = nib.load(tmp_path / "like" / "sample_0000_map.nii.gz")
    tissue = np.asarray(labels.dataobj) > 0
    error = (after.get_fdata() - before.get_fdata())[tissue]
    assert np.sqrt(np.mean(error**2)) < 0.5 * before.get_fdata()[tissue].std()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--condition", "contrast=1.4"], "no condition 'contrast' of an anatomy; choose from"),
        (["--condition", "ventricles=900"], "no anatomy reaches ventricles = 900 ml"),
        (["--condition", "asymmetry=2"], "asymmetry lies between -1 and 1"),
        (["--contrast", 3], "contrast = 3 is outside 1.2 to 1.6"),
        (["--age", 40], "without age"),
        (["--map", "gone.nii"], "gone.nii does not exist"),
        (["--map", "MAP", "--condition", "brain=900"], "--map and --condition both set"),
        (["--map", "MAP", "--like", "MAP"], "--map and --like both set"),
        (["--guidance", 2], "--guidance belongs to --image-only"),
        (["--like", "MAP", "--centre", 0, 0, 0], "--centre belongs to --image-only"),
        (["--image-only"], "leave out --image-only"),
        (["--steps", 0], "at least one step"),
        (["--map", "MAP", "--spacing", 500, 1, 1], "larger than the image"),
    ],
)
def test_bad_options_are_refused_and_leave_nothing(sample, tmp_path, options, words):
    if "MAP" in options:
        path = labels_file(tmp_path)
        options = [path if option == "MAP" else option for option in options]
    refused(sample(*options), words)
    assert not (tmp_path / "out").exists()


def test_an_existing_map_stops_all_work_unless_forced(sample, tmp_path):
    path = labels_file(tmp_path)
    options = "--map", path, "--save-map", "--spacing", 2, 2, 2
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sample_0000_map.nii.gz").write_text("old")
    refused(sample(*options), "--force")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["sample_0000_map.nii.gz"]
    assert sample(*options, "--force")[0] == 0
    assert isinstance(load_map(tmp_path / "out" / "sample_0000_map.nii.gz"), LabelMap)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--image-only", "--save-map"], "--save-map needs a tissue map; leave out --image-only"),
        (["--preset", "base", "--age", 40], "--age needs an anatomy-first model; name one"),
    ],
)
def test_an_image_only_model_has_no_maps(run_medil, tmp_path, options, words):
    refused(run_medil("sample", "-o", tmp_path / "out", *options), words)
    assert not (tmp_path / "out").exists()


def test_anatomy_first_is_the_default_where_a_preset_has_such_a_model(
    run_medil, tmp_path, monkeypatch
):
    """The manifest alone decides."""
    known = {"tiny-appearance": None}
    monkeypatch.setattr("medil.diffusion.anatomies.releases", lambda: known)
    asked = []

    def load_release(name):
        asked.append(name)
        raise medil.InputError("none here.")

    monkeypatch.setattr("medil.diffusion.appearance_training.load_appearance_release", load_release)
    monkeypatch.setattr("medil.diffusion.training.load_flow_release", load_release)
    out = "-o", tmp_path / "out"
    for options in (["--save-map"], ["--image-only"], ["--preset", "base"]):
        refused(run_medil("sample", *out, *options), "none here.")
    assert asked == ["tiny", "tiny", "base"]
