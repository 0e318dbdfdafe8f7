"""The command line: what each verb writes, in mm."""

from __future__ import annotations

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch

from medil.grid import centres_mm
from medil.volume import load, save
from tests.images import inner, ramp, refused, write_nifti

click = pytest.importorskip("click", reason="click (extra cli) is not installed")

VERBS = (
    "info",
    "encode",
    "decode",
    "reconstruct",
    "phantom",
    "cohort",
    "sample",
    "train-ldm",
    "train-segmenter",
    "train",
    "evaluate",
    "book",
)
# Help


def test_help_lists_every_verb_and_an_example(run_medil):
    code, out, err = run_medil("--help")
    assert (code, err) == (0, "")
    assert all(f"\n  {verb} " in out for verb in VERBS)
    assert run_medil() == (0, out, "")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_has_an_example_of_it(run_medil, verb):
    code, out, _ = run_medil(verb, "--help")
    assert code == 0
    assert f"Example: medil {verb}" in out


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from medil.cli import run; run(['--help']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'nibabel')))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_python_m_medil_is_the_command():
    command = [sys.executable, "-m", "medil", "info", "gone.nii"]
    ran = subprocess.run(command, capture_output=True, text=True)
    refused((ran.returncode, ran.stdout, ran.stderr), "gone.nii does not exist")


def test_without_click_one_sentence_says_what_to_install(monkeypatch, run_medil):
    monkeypatch.setitem(sys.modules, "click", None)
    refused(run_medil("info"), "pip install 'medil-book[cli]'")


# What the verbs do


def test_info_tells_geometry_codes_and_latent_grid(run_medil, scan):
    code, out, err = run_medil("info", scan)
    facts = {line[:12].strip(): line[13:] for line in out.splitlines()}
    assert (code, err) == (0, "")
    assert facts["shape"] == "24 x 22 x 9"
    assert facts["orientation"].startswith("LPS")
    assert facts["spacing_mm"] == "1.2 x 1.5 x 4"
    assert facts["extent_mm"] == "28.8 x 33 x 36"
    assert facts["codes"] == "qform 2, sform 1"
    assert facts["forms"].startswith("qform and sform lie")
    assert facts["half_voxel"] == "no sign"
    assert len(facts["tilt_deg"].split(", ")) == 3
    assert facts["units"] == "space mm, time sec"
    assert facts["dtype"].startswith("uint16")
    assert "at 4 mm" in facts["latent"] and facts["latent"].startswith("8 x 8 x 9 x 9")
    low, high = load(scan).grid.bounds_mm
    assert facts["bounds_mm"].startswith(f"R {low[0]:.2f} to {high[0]:.2f}, A {low[1]:.2f}")


def test_info_describes_images_that_cannot_be_encoded(run_medil, scan, tmp_path):
    volume = load(scan)
    save(volume.with_data(torch.zeros_like(volume.data)), tmp_path / "flat.nii")
    code, out, _ = run_medil("info", tmp_path / "flat.nii")
    assert code == 0 and "constant" in out
    data = volume.data.float()
    data[:2] = torch.nan
    save(volume.with_data(data), tmp_path / "holes.nii")
    code, out, _ = run_medil("info", tmp_path / "holes.nii")
    assert code == 0 and f"{torch.isnan(data).sum():,} voxels (NaN or Inf)" in out


def test_reconstruct_gives_the_inputs_shape_orientation_affine_and_codes(run_medil, scan, tmp_path):
    assert run_medil("reconstruct", scan, "-o", tmp_path / "out.nii.gz")[0] == 0
    a, b = nib.load(scan), nib.load(tmp_path / "out.nii.gz")
    assert a.shape == b.shape
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-6)
    np.testing.assert_allclose(a.get_qform(), b.get_qform(), atol=1e-6)
    assert nib.aff2axcodes(b.affine) == ("L", "P", "S")
    for key in ("qform_code", "sform_code", "xyzt_units"):
        assert a.header[key] == b.header[key]
    deep = inner(load(scan).grid, 6, load(scan).grid)
    error = (load(tmp_path / "out.nii.gz").data - ramp(load(scan).grid))[deep]
    assert error.abs().max() < 0.6  # the input was rounded to integers


def test_a_guarded_rendering_and_its_uncertainty_lie_on_the_grid_that_was_asked_for(
    run_medil, scan, tmp_path
):
    out, errors = tmp_path / "out.nii.gz", tmp_path / "errors.nii.gz"
    options = ("--spacing", 2, 2, 2, "--guard", "mirrors", "--uncertainty", errors)
    assert run_medil("reconstruct", scan, "-o", out, *options)[0] == 0
    assert run_medil("reconstruct", scan, "-o", tmp_path / "plain.nii", *options[:4])[0] == 0
    plain, guarded, error = (load(p) for p in (tmp_path / "plain.nii", out, errors))
    assert guarded.grid.is_close(plain.grid) and error.grid.is_close(plain.grid)
    deep = inner(plain.grid, 6, plain.grid)
    assert (guarded.data - plain.data)[deep].abs().max() < 1
    assert (error.data >= 0).all() and error.data.max() > 0


def test_an_uncertainty_map_has_a_name_of_its_own(run_medil, scan, tmp_path):
    out = tmp_path / "out.nii.gz"
    refused(run_medil("reconstruct", scan, "-o", out, "--uncertainty", out), "asked for twice")
    assert not out.exists()


def test_reconstruct_at_a_spacing_keeps_the_box_and_the_ramp_in_mm(run_medil, scan, tmp_path):
    out = tmp_path / "fine.nii.gz"
    assert run_medil("reconstruct", scan, "-o", out, "--spacing", 1, 1, 2)[0] == 0
    before, after = load(scan), load(out)
    assert after.source.orientation == "LPS"
    np.testing.assert_allclose(after.source.grid.spacing_mm, (1, 1, 2), rtol=1e-6)
    half = np.array(before.source.grid.spacing_mm).max() / 2
    assert np.abs(after.grid.bounds_mm - before.grid.bounds_mm).max() <= half
    deep = inner(after.grid, 6, before.grid)
    assert deep.sum() > 1000
    assert (after.data - ramp(after.grid))[deep].abs().max() < 0.6


def test_reconstruct_says_what_it_wrote_and_warns_of_voxels_below_the_scans(
    run_medil, scan, tmp_path
):
    out_path = tmp_path / "out.nii.gz"
    _, out, err = run_medil("reconstruct", scan, "-o", out_path, "--spacing", "2.4", "3", "6")
    shape = " x ".join(map(str, nib.load(out_path).shape))
    assert out.startswith(f"{out_path}: {shape} voxels of 2.4 x 3 x 6 mm, made of ")
    assert "detail" not in err
    _, _, err = run_medil(
        "reconstruct", scan, "-o", out_path, "--spacing", "1", "1", "1", "--force"
    )
    assert "warning: these voxels are smaller than the scan's" in err


def test_one_number_of_spacing_means_cubes(run_medil, scan, tmp_path):
    out_path = tmp_path / "out.nii.gz"
    assert run_medil("reconstruct", scan, "-o", out_path, "--spacing", "6")[0] == 0
    assert load(out_path).grid.spacing_mm == pytest.approx((6, 6, 6), rel=0.2)
    code, _, err = run_medil("reconstruct", scan, "-o", out_path, "--spacing", "6", "6", "--force")
    assert code == 2 and "--spacing" in err


def test_reconstruct_spacing_follows_the_axes_of_the_file(run_medil, tmp_path, scan):
    grid = load(scan).grid.reoriented("SAL")[0]
    path = write_nifti(tmp_path / "sal.nii", ramp(grid).numpy(), grid.affine_vox2ras)
    out = tmp_path / "out.nii"
    assert run_medil("reconstruct", path, "-o", out, "--spacing", 3, 2, 1)[0] == 0
    np.testing.assert_allclose(nib.load(out).header.get_zooms(), (3, 2, 1), rtol=1e-6)


def test_reconstruct_like_another_image_lies_on_its_grid(run_medil, scan, tmp_path):
    other = load(scan).grid.with_spacing(3.5).rotated((0, 0, 1), 25).reoriented("LIA")[0]
    path = write_nifti(tmp_path / "other.nii", ramp(other).numpy(), other.affine_vox2ras, 0, 3)
    out = tmp_path / "out.nii"
    assert run_medil("reconstruct", scan, "-o", out, "--like", path)[0] == 0
    a, b = nib.load(path), nib.load(out)
    assert a.shape == b.shape
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-6)
    assert int(b.header["sform_code"]) == 3
    deep = inner(load(out).grid, 6, load(scan).grid)
    assert (load(out).data - ramp(load(out).grid))[deep].abs().max() < 0.6


def test_encode_then_decode_is_reconstruct(run_medil, scan, tmp_path):
    latent = tmp_path / "scan.safetensors"
    assert run_medil("encode", scan, "-o", latent)[0] == 0
    for name, options in [("same", []), ("fine", ["--spacing", 1, 1, 2])]:
        direct, twice = tmp_path / f"{name}1.nii.gz", tmp_path / f"{name}2.nii.gz"
        assert run_medil("reconstruct", scan, "-o", direct, *options)[0] == 0
        assert run_medil("decode", latent, "-o", twice, *options)[0] == 0
        a, b = nib.load(direct), nib.load(twice)
        assert a.shape == b.shape
        np.testing.assert_allclose(a.affine, b.affine, atol=1e-6)
        np.testing.assert_allclose(a.get_fdata(), b.get_fdata(), atol=1e-3)
        assert int(b.header["qform_code"]) == 2 and int(b.header["sform_code"]) == 1


def test_a_window_fixes_the_scaling_and_comes_out_again(run_medil, scan, tmp_path):
    from medil.latent import Latent

    latent, out = tmp_path / "l.safetensors", tmp_path / "out.nii"
    assert run_medil("encode", scan, "-o", latent, "--window", -1000, 1000)[0] == 0
    intensity = Latent.load(latent).intensity
    assert (intensity.low, intensity.high) == (-1000, 1000)
    assert run_medil("reconstruct", scan, "-o", out, "--window", -1000, 1000)[0] == 0
    deep = inner(load(scan).grid, 6, load(scan).grid)
    assert (load(out).data - ramp(load(scan).grid))[deep].abs().max() < 0.6


def test_a_named_window_is_its_two_numbers(run_medil, scan, tmp_path):
    from medil.latent import Latent

    latent = tmp_path / "l.safetensors"
    assert run_medil("encode", scan, "--window", "lung", "-o", latent)[0] == 0
    intensity = Latent.load(latent).intensity
    assert (intensity.low, intensity.high) == (-1350, 150)


def test_like_a_4d_image_takes_its_grid(run_medil, scan, tmp_path):
    grid = load(scan).grid
    write_nifti(tmp_path / "4d.nii", np.zeros((*grid.shape, 2), np.uint8), grid.affine_vox2ras)
    out = tmp_path / "out.nii"
    assert run_medil("reconstruct", scan, "-o", out, "--like", tmp_path / "4d.nii")[0] == 0
    assert load(out).grid.is_close(grid, 1e-4) and load(out).source.orientation == "RAS"


def test_nan_in_the_input_spoils_nothing(run_medil, scan, tmp_path):
    volume = load(scan)
    data = volume.data.float()
    data[3, 4, 5] = torch.nan
    save(volume.with_data(data), tmp_path / "holes.nii")
    code, _, err = run_medil("reconstruct", tmp_path / "holes.nii", "-o", tmp_path / "out.nii")
    assert (
        code == 0
        and err.startswith("warning: voxels that are NaN or Inf (1)")
        and err.count("\n") == 1
    )
    assert torch.equal(load(tmp_path / "out.nii").data.isnan(), data.isnan())


def test_one_volume_of_a_4d_image_is_reconstructed(run_medil, scan, tmp_path):
    volume = load(scan)
    stack = torch.stack([volume.data, volume.data.flip(0)], -1).float().numpy()
    write_nifti(tmp_path / "two.nii", stack, volume.grid.affine_vox2ras)
    out = tmp_path / "out.nii"
    assert run_medil("reconstruct", tmp_path / "two.nii", "-o", out, "--volume", 1)[0] == 0
    deep = inner(volume.grid, 6, volume.grid)
    assert (load(out).data - volume.data.flip(0))[deep].abs().max() < 0.6


def test_train_passes_its_options_on(run_medil, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("medil.training.start.start", lambda *a, **k: calls.append((a, k)))
    monkeypatch.setattr("medil.system.workers.process_count", lambda: 5)
    out = tmp_path / "run"
    options = "--seed", 3, "--minutes", 2, "--time-budget", "90s", "--processes", 2, "--batch", 4
    settings = "--set", "model.hidden=8", "train.patch_sides_mm=24,32", "--set", "train.bf16=no"
    code, _, _ = run_medil("train", *settings, "--preset", "test", "-o", out, *options)
    (((kind, *places, changes), names),) = calls
    assert code == 0 and kind.verb == "train" and places == [out, "test"]
    assert changes == {
        "model.hidden": "8", "train.patch_sides_mm": "24,32", "train.bf16": "no",
        "train.minutes": 2.0, "train.steps": 0, "train.batch": 4,
    }  # fmt: skip
    assert {k: v for k, v in names.items() if v is not None} == {
        "seed": 3, "time_budget_s": 90.0, "processes": 2,
        "resume": False, "device": "auto", "workers": 5,
    }  # fmt: skip


@pytest.mark.parametrize("spacing_mm", [(2, 2, 2), (2.0, 3.0, 5.0)])
def test_a_phantom_has_its_volume_on_every_grid(run_medil, tmp_path, spacing_mm):
    out = tmp_path / "ball.nii.gz"
    assert run_medil("phantom", "ball", "-o", out, "--spacing", *spacing_mm)[0] == 0
    ball = load(out)
    np.testing.assert_allclose(ball.grid.spacing_mm, spacing_mm)
    np.testing.assert_allclose(ball.grid.centre_mm, 0, atol=1e-6)
    volume_mm3 = float(ball.data.sum()) * np.prod(spacing_mm)
    assert volume_mm3 == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.005)


def test_a_phantom_like_another_image_lies_on_its_grid(run_medil, scan, tmp_path):
    out = tmp_path / "ramp.nii"
    assert run_medil("phantom", "ramp", "-o", out, "--like", scan)[0] == 0
    a, b = nib.load(scan), nib.load(out)
    assert a.shape == b.shape
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-6)
    expected = 0.5 + centres_mm(load(out).grid) @ torch.tensor([0.004, 0.003, 0.002]).double()
    np.testing.assert_allclose(load(out).data, expected, atol=1e-6)


def test_a_seed_changes_drawn_phantoms_and_is_refused_by_others(run_medil, tmp_path):
    for seed in (1, 2):
        out = tmp_path / f"{seed}.nii"
        arguments = ("phantom", "airway", "-o", out, "--seed", seed, "--spacing", 6, 6, 6)
        assert run_medil(*arguments, "--supersample", 1)[0] == 0
    assert load(tmp_path / "1.nii").data.shape != load(tmp_path / "2.nii").data.shape or not (
        torch.equal(load(tmp_path / "1.nii").data, load(tmp_path / "2.nii").data)
    )
    refused(run_medil("phantom", "ball", "-o", tmp_path / "b.nii", "--seed", 1), "no random parts")


def test_a_cohort_is_written_subject_by_subject(run_medil, scan, tmp_path, monkeypatch):
    cohort = pytest.importorskip("medil.synth.cohort")
    monkeypatch.setattr("medil.synth.anatomy.tissue_anatomy", lambda: "tissue")
    drawn = []

    def subject(anatomy, seed, index):
        drawn.append((anatomy, seed, index))
        return load(scan)

    monkeypatch.setattr(cohort, "subject", subject)
    out = tmp_path / "subjects"
    assert run_medil("cohort", "-o", out, "-n", 2, "--seed", 5)[0] == 0
    assert drawn == [("tissue", 5, 0), ("tissue", 5, 1)]
    names = ["subject_5_0000.nii.gz", "subject_5_0001.nii.gz"]
    assert sorted(path.name for path in out.iterdir()) == names
    refused(run_medil("cohort", "-o", out, "-n", 2, "--seed", 5), "--force")
    assert run_medil("cohort", "-o", out, "-n", 2, "--seed", 5, "--force")[0] == 0


# A real scan


def test_real_scan_keeps_its_grid_and_box(run_medil, mirror, tmp_path, monkeypatch, spline_model):
    monkeypatch.setattr("medil.model.weights.load_release", lambda name: spline_model)
    path = mirror / "open_ms_t1" / "longitudinal_patient01_study1_T1W.nii.gz"
    out = tmp_path / "out.nii"
    assert run_medil("reconstruct", path, "-o", out, "--spacing", 3, 3, 3)[0] == 0
    before, after = load(path), load(out)
    np.testing.assert_allclose(after.source.grid.spacing_mm, 3, rtol=1e-6)
    assert after.source.orientation == "LPS"
    half = np.array(before.source.grid.spacing_mm).max() / 2
    assert np.abs(after.grid.bounds_mm - before.grid.bounds_mm).max() <= half
