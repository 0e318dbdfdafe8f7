"""Bad input and being stopped: one sentence, an exit code, and no file left behind."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medil import cli
from medil.cli import with_options
from medil.model.field import Field
from medil.volume import load, save
from tests.images import refused, write_nifti

click = pytest.importorskip("click", reason="click (extra cli) is not installed")

ROOT = Path(__file__).parents[2]

# Bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--spacing", 0, 1, 1], "above zero"),
        (["--spacing", -1, 1, 1], "above zero"),
        (["--spacing", "nan", 1, 1], "finite"),
        (["--spacing", "inf", 1, 1], "finite"),
        (["--spacing", 1, 1], "3 arguments"),
        (["--spacing", 1e-3, 1e-3, 1e-3], "GB"),
        (["--spacing", 1e-200, 1, 1], "too small"),
        (["--spacing", 1, 1, 500], "larger than the image"),
        (["--spacing", 1, 1, 1, "--like", "x.nii"], "only one"),
        (["--like", "gone.nii"], "does not exist"),
        (["--preset", "huge"], "no preset 'huge'"),
        (["--weights", "gone.safetensors"], "gone.safetensors"),
        (["--window", 100, -100], "low < high"),
        (["--window", "liver"], "'liver'; name one of lung, mediastinum, bone, or two numbers"),
        (["--volume", 3], "--volume 3, but the image has one volume"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_bad_options_are_refused_and_leave_no_file(run_medil, scan, tmp_path, options, words):
    before = sorted(tmp_path.iterdir())
    refused(run_medil("reconstruct", scan, "-o", tmp_path / "out.nii", *options), words)
    assert sorted(tmp_path.iterdir()) == before


def test_too_fine_a_spacing_says_voxels_needed_and_free_disk(run_medil, scan, tmp_path):
    result = run_medil(
        "reconstruct", scan, "-o", tmp_path / "o.nii", "--spacing", 0.001, 0.001, 0.01
    )
    refused(result, f"{28800 * 33000 * 3600:,} voxels")
    assert "is free" in result[2] and "GB of disk" in result[2]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing/out.nii", "does not exist"),
        ("there.nii", "or pass --force to"),
        ("out.png", "unknown extension"),
        ("", "unknown extension"),
    ],
)
@pytest.mark.parametrize("verb", ["reconstruct", "decode", "phantom"])
def test_bad_outputs_are_refused_before_any_work(run_medil, scan, tmp_path, verb, name, words):
    (tmp_path / "there.nii").write_text("old")
    before = sorted(tmp_path.iterdir())
    first = "ball" if verb == "phantom" else scan
    refused(run_medil(verb, first, "-o", tmp_path / name), words)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.nii").read_text() == "old"


def test_force_replaces_an_output(run_medil, scan, tmp_path):
    out = tmp_path / "out.nii"
    out.write_text("old")
    assert run_medil("reconstruct", scan, "-o", out, "--force")[0] == 0
    assert load(out).grid.is_close(load(scan).grid)


@pytest.mark.parametrize("value", [7.0, float("nan")])
def test_images_with_nothing_in_them_are_refused(run_medil, scan, tmp_path, value):
    volume = load(scan)
    save(volume.with_data(torch.full(volume.grid.shape, value)), tmp_path / "in.nii")
    before = sorted(tmp_path.iterdir())
    result = run_medil("reconstruct", tmp_path / "in.nii", "-o", tmp_path / "out.nii")
    refused(result, "constant" if value == 7.0 else "no finite value")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("verb", ["info", "encode", "reconstruct"])
@pytest.mark.parametrize(
    ("name", "words"),
    [("gone.nii", "does not exist"), ("text.nii", "not a whole, readable"), ("dir.nii", "folder"),
     ("cut.nii.gz", "not a whole, readable"), ("four.nii", "--volume K"), ("flat.nii", "2-D")],
)  # fmt: skip
def test_bad_images_are_refused_by_every_verb(run_medil, scan, tmp_path, verb, name, words):
    (tmp_path / "text.nii").write_text("not an image" * 99)
    (tmp_path / "dir.nii").mkdir()
    (tmp_path / "cut.nii.gz").write_bytes(scan.read_bytes()[:700])
    write_nifti(tmp_path / "four.nii", np.zeros((3, 4, 5, 2), np.int16), np.eye(4))
    write_nifti(tmp_path / "flat.nii", np.zeros((3, 4), np.int16), np.eye(4))
    before = sorted(tmp_path.iterdir())
    suffix = ".safetensors" if verb == "encode" else ".nii"
    out = [] if verb == "info" else ["-o", tmp_path / f"out{suffix}"]
    refused(run_medil(verb, tmp_path / name, *out), words)
    assert sorted(tmp_path.iterdir()) == before


def test_weights_of_another_preset_are_refused(run_medil, scan, tmp_path, spline_model):
    from medil.config import PRESETS
    from medil.model.weights import save_weights

    weights = save_weights(spline_model, PRESETS["test"], tmp_path / "w.safetensors", {})
    out = tmp_path / "out.nii"
    common = ("reconstruct", scan, "-o", out, "--weights", weights)
    refused(run_medil(*common, "--preset", "tiny"), "preset")
    assert not out.exists()
    assert run_medil(*common, "--preset", "test")[0] == 0
    assert out.exists()


def test_a_latent_of_other_weights_is_refused(run_medil, scan, tmp_path, spline_model):
    latent = replace(spline_model.encode(load(scan)), weights_id="others")
    latent.save(tmp_path / "l.safetensors")
    refused(
        run_medil("decode", tmp_path / "l.safetensors", "-o", tmp_path / "o.nii"), "other weights"
    )


@pytest.mark.parametrize("name", ["gone.safetensors", "scan.nii.gz"])
def test_what_is_not_a_latent_is_not_decoded(run_medil, scan, tmp_path, name):
    result = run_medil("decode", tmp_path / name, "-o", tmp_path / "o.nii")
    refused(result, name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--preset", "huge", "-o", "x"), "no preset 'huge'"),
        (("train", "-o", "x", "--minutes", "0"), "above zero"),
        (("train", "-o", "x", "--resume"), "no run to resume"),
        (("cohort", "-o", "x", "-n", "0"), "-n"),
        (("phantom", "blob", "-o", "x.nii"), "blob"),
        (("encode", "scan.nii", "-o", "x.nii"), "ends in .safetensors"),
        (("fly",), "fly"),
        (("info",), "FILE"),
    ],
)
def test_bad_arguments_are_refused(run_medil, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    refused(run_medil(*arguments), words)
    assert list(tmp_path.iterdir()) == []


# Being stopped


def test_ctrl_c_exits_130_and_leaves_no_file(run_medil, scan, tmp_path, monkeypatch, spline_model):
    def stopped(*_, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Field, "slabs", stopped)
    before = sorted(tmp_path.iterdir())
    code, out, err = run_medil("reconstruct", scan, "-o", tmp_path / "out.nii")
    assert (code, out) == (130, "")
    assert err.strip() == "medil: stopped; nothing half-written was kept."
    assert sorted(tmp_path.iterdir()) == before


def test_running_out_of_memory_is_one_sentence(
    run_medil, scan, tmp_path, monkeypatch, spline_model
):
    def greedy(*_, **_options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(Field, "slabs", greedy)
    refused(run_medil("reconstruct", scan, "-o", tmp_path / "out.nii"), "memory ran out")


def test_a_bug_keeps_its_traceback(run_medil, scan, tmp_path, monkeypatch, spline_model):
    def broken(*_, **_options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Field, "slabs", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run_medil("reconstruct", scan, "-o", tmp_path / "out.nii")


def test_main_leaves_with_the_exit_code(monkeypatch):
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "run", lambda arguments: 2 if arguments == ["x"] else 0)
    with pytest.raises(SystemExit) as left:
        cli.main(["x"])
    assert left.value.code == 2


# How the library's sentences become those of the command line


def test_options_stand_where_the_library_names_parameters():
    sentence = "`force=True`, `volume_index=3`, `memory_bytes`, `warm_start_from`, `tiny`"
    from medil.cli.images import medil

    assert with_options(sentence, medil) == "--force, --volume 3, --memory, --from, `tiny`"


def test_the_library_never_names_an_option():
    for path in sorted((ROOT / "medil").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8")) if "cli" not in path.parts else ast.Module([], [])
        for raised in (node for node in ast.walk(tree) if isinstance(node, ast.Raise)):
            assert not re.search(r"(^|[ '])--[a-z]", ast.unparse(raised)), path


@pytest.mark.parametrize("verb", ["reconstruct", "decode", "phantom"])
def test_a_grid_that_shares_nothing_with_the_image_is_refused(run_medil, scan, tmp_path, verb):
    image = load(scan)
    far = image.grid.shifted((1000, 0, 0))
    save(image.with_data(image.data, far), tmp_path / "far.nii")
    first = scan
    if verb == "decode":
        first = tmp_path / "a.safetensors"
        assert run_medil("encode", scan, "-o", first)[0] == 0
    first = "ball" if verb == "phantom" else first
    out = tmp_path / "out.nii"
    refused(run_medil(verb, first, "-o", out, "--like", tmp_path / "far.nii"), "shares nothing")
    assert not out.exists()
