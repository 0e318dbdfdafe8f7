"""`medil sample`: files in mm, one latent on several grids, and what is refused."""

from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from medil.config import PRESETS
from medil.diffusion.config import FLOW_PRESETS
from medil.diffusion.training import save_flow
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.model.field import Field
from medil.model.weights import load_model, save_weights
from medil.volume import load
from tests.diffusion.test_flow import BOX, CASCADE, latent_set, stirred, tiny_flow
from tests.diffusion.test_sampling import CENTRE_MM, ball
from tests.images import refused, write_nifti

click = pytest.importorskip("click", reason="click (extra cli) is not installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A flow, its autoencoder, and one of other weights."""
    folder = tmp_path_factory.mktemp("weights")
    paths = SimpleNamespace(folder=folder)
    for seed, name in ((0, "autoencoder"), (1, "other")):
        torch.manual_seed(seed)
        model = MedIL(PRESETS["test"].model)
        path = save_weights(model, PRESETS["test"], folder / f"{name}.safetensors", {})
        setattr(paths, name, path)
    weights_id = load_model(paths.autoencoder).weights_id
    flow = stirred(tiny_flow(latent_set(weights_id=weights_id), CASCADE))
    paths.flow = save_flow(
        flow, replace(FLOW_PRESETS["test"], model=CASCADE), folder / "flow.safetensors", {}
    )
    return paths


@pytest.fixture
def sample(run_medil, weights, tmp_path):
    """`medil sample` with the test's own weights into a folder."""

    def run_it(*options, out="out"):
        return run_medil(
            "sample", "--weights", weights.flow, "--autoencoder", weights.autoencoder,
            "--steps", 2, "--spacing", 4, 4, 4, "-o", tmp_path / out, *options,
        )  # fmt: skip

    return run_it


@pytest.fixture
def slabs(tmp_path):
    """A scan of a ball on an LPS grid of slabs, and its file."""
    from medil.grid import Grid

    grid = Grid.from_spacing((20, 18, 12), (2.0, 2.0, 4.0), (-6.0, -40.0, 9.0))
    placed = grid.rotated((0, 0.3, 1), 12).reoriented("LPS")[0]
    data = ball(placed, CENTRE_MM).data.numpy().astype(np.int16)
    return write_nifti(tmp_path / "slabs.nii.gz", data, placed.affine_vox2ras)


# Files


def test_each_seed_gives_a_file_with_its_box_and_codes_in_mm(sample, tmp_path):
    code, out, err = sample("--n", 2, "--seed", 7, "--also-spacing", 2, 2, 8)
    assert (code, out, err) == (0, "", "")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "sample_0007.nii.gz", "sample_0007_2x2x8mm.nii.gz",
        "sample_0008.nii.gz", "sample_0008_2x2x8mm.nii.gz",
    ]  # fmt: skip
    for name, zooms in (("sample_0007", (4, 4, 4)), ("sample_0008_2x2x8mm", (2, 2, 8))):
        image = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        np.testing.assert_allclose(image.header.get_zooms(), zooms)
        assert int(image.header["qform_code"]) > 0 and int(image.header["sform_code"]) > 0
        assert image.header.get_xyzt_units()[0] == "mm"
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-5)
        bounds_mm = load(tmp_path / "out" / f"{name}.nii.gz").grid.bounds_mm
        np.testing.assert_allclose(bounds_mm, BOX.bounds_mm, atol=1e-4)


def test_both_renderings_are_of_one_latent(sample, tmp_path, weights):
    assert sample("--latents", "--also-spacing", 2, 2, 2)[0] == 0
    latent = Latent.load(tmp_path / "out" / "sample_0000.safetensors")
    assert latent.grid == BOX and latent.native == BOX
    model = load_model(weights.autoencoder)
    for name, grid in (("", BOX), ("_2x2x2mm", BOX.with_spacing(2.0))):
        written = load(tmp_path / "out" / f"sample_0000{name}.nii.gz")
        assert written.grid.is_close(grid)
        torch.testing.assert_close(written.data, model.decode(latent, grid).data, atol=1e-5, rtol=0)


def test_a_seed_gives_the_same_sample_wherever_it_stands(sample, tmp_path):
    assert sample("--n", 2, "--seed", 3, out="a")[0] == 0
    assert sample("--seed", 4, out="b")[0] == 0
    three, four = (load(tmp_path / "a" / f"sample_000{k}.nii.gz").data for k in (3, 4))
    assert torch.equal(load(tmp_path / "b" / "sample_0004.nii.gz").data, four)
    assert (three - four).abs().max() > 1e-2


def test_conditions_and_guidance_change_the_sample(sample, tmp_path):
    requested = "--condition", "ventricles=30", "--condition", "brain=45"
    assert sample(out="free")[0] == 0
    assert sample(*requested, out="requested")[0] == 0
    assert sample(*requested, "--guidance", 2.5, out="guided")[0] == 0
    found = [
        load(tmp_path / name / "sample_0000.nii.gz").data
        for name in ("free", "requested", "guided")
    ]
    assert (found[0] - found[1]).abs().max() > 1e-3 and (found[1] - found[2]).abs().max() > 1e-3


def test_a_value_outside_the_trained_range_is_a_warning(sample, tmp_path):
    code, _, err = sample("--condition", "ventricles=200")
    assert code == 0 and err.count("\n") == 1
    assert "ventricles = 200 ml is outside the range of the training data" in err
    assert (tmp_path / "out" / "sample_0000.nii.gz").exists()


# Like a scan


def test_like_a_scan_lies_on_its_grid_and_agrees_with_it(run_medil, weights, slabs, tmp_path):
    code, _, err = run_medil(
        "sample", "--weights", weights.flow, "--autoencoder", weights.autoencoder,
        "--steps", 3, "--like", slabs, "-o", tmp_path / "out", "--also-spacing", 8, 4, 4,
    )  # fmt: skip
    assert (code, err) == (0, "")
    a, b = nib.load(slabs), nib.load(tmp_path / "out" / "sample_0000.nii.gz")
    assert a.shape == b.shape and nib.aff2axcodes(b.affine) == ("L", "P", "S")
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-5)
    assert (b.header["qform_code"], b.header["sform_code"]) == (2, 1)
    scan, drawn = load(slabs), load(tmp_path / "out" / "sample_0000.nii.gz")
    error = (drawn.data - scan.data)[3:-3, 3:-3, 1:-1]
    assert float(error.square().mean().sqrt()) < 0.2 * float(scan.data.float().std())
    box = load(tmp_path / "out" / "sample_0000_8x4x4mm.nii.gz")
    np.testing.assert_allclose(box.source.grid.spacing_mm, (8, 4, 4), rtol=1e-5)
    np.testing.assert_allclose(box.grid.extent_mm, BOX.extent_mm)
    np.testing.assert_allclose(box.grid.centre_mm, CENTRE_MM, atol=4.0)


def test_the_middle_of_the_head_can_be_named(sample, slabs, tmp_path):
    assert sample("--like", slabs, "--centre", 10, -20, 30)[0] == 0
    grid = load(tmp_path / "out" / "sample_0000.nii.gz").grid
    np.testing.assert_allclose(grid.centre_mm, (10, -20, 30), atol=1e-3)
    np.testing.assert_allclose(grid.extent_mm, BOX.extent_mm)


# Refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--condition", "age=40"], "no condition 'age'; choose from ventricles"),
        (["--condition", "brain"], "of the form name=value, such as ventricles=40"),
        (["--condition", "brain=big"], "needs a number, not 'big'"),
        (["--condition", "brain=nan"], "needs a number"),
        (["--condition", "brain=1", "--condition", "brain=2"], "set twice"),
        (["--guidance", -1], "zero or above"),
        (["--guidance", "nan"], "zero or above"),
        (["--steps", 0], "1 to 1000 steps, not 0"),
        (["--n", 0], "--n"),
        (["--seed", -1], "--seed"),
        (["--spacing", 0, 1, 1], "above zero"),
        (["--spacing", 500, 1, 1], "larger than the image"),
        (["--also-spacing", 1e-3, 1e-3, 1e-3], "GB"),
        (["--also-spacing", 2, 2, 2, "--also-spacing", 2, 2, 2], "repeated"),
        (["--centre", 0, 0, 0], "name it with --like"),
        (["--volume", 1], "name it with --like"),
        (["--like", "gone.nii"], "does not exist"),
        (["--preset", "tiny"], "name only one"),
        (["--weights", "gone.safetensors"], "gone.safetensors is not a file"),
    ],
)
def test_bad_options_are_refused_and_leave_nothing(sample, tmp_path, options, words):
    refused(sample(*options), words)
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_belong_together_are_refused(run_medil, weights, tmp_path):
    common = ("sample", "-o", tmp_path / "out", "--autoencoder")
    refused(run_medil(*common, weights.other, "--weights", weights.flow), "belong together")
    result = run_medil(*common, weights.autoencoder, "--weights", weights.autoencoder)
    refused(result, "does not hold what is needed")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["sample_0001.nii.gz", "sample_0001_2x2x2mm.nii.gz"])
def test_an_output_that_exists_stops_all_work_unless_forced(sample, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("old")
    options = "--n", 2, "--also-spacing", 2, 2, 2
    refused(sample(*options), "--force")
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "old"
    assert sample(*options, "--force")[0] == 0
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert torch.isfinite(load(tmp_path / "out" / name).data).all()


def test_a_folder_that_cannot_be_made_is_refused(sample, tmp_path):
    (tmp_path / "file").write_text("")
    refused(sample(out=tmp_path / "file"), "is a file")


def test_ctrl_c_keeps_whole_samples_only(sample, tmp_path, monkeypatch):
    whole, done = Field.slabs, []

    def stopped(self, *arguments, **options):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return whole(self, *arguments, **options)

    monkeypatch.setattr(Field, "slabs", stopped)
    code, _, err = sample("--n", 3)
    assert code == 130 and "stopped" in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["sample_0000.nii.gz"]
    assert torch.isfinite(load(tmp_path / "out" / "sample_0000.nii.gz").data).all()
