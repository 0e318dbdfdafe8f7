"""Preparing heads: masks, bias fields, alignment by the affine alone, folders, and their page."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from medil.checksums import SUM
from medil.data.manifest import entries, fetch, local_entries
from medil.data.samples import mni152_template
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.io.listing import Listed, list_images
from medil.io.nifti import ALIGNED
from medil.preprocess import alignment as aligning
from medil.preprocess import brain_mask as masking
from medil.preprocess import pipeline, quality
from medil.preprocess.bias_field import bias_field, field_range
from medil.preprocess.pipeline import PAGE, Steps, output_name, preprocess
from medil.volume import Volume, load, save

SimpleITK = pytest.importorskip("SimpleITK", reason="needs the extra `preprocess`")
GIVEN = Steps("given", bias=False, align=False)


def ball(shape=(44, 40, 36), spacing_mm=3.0, seed=0):
    """A noisy bright ball in air of 0, at an oblique place."""
    grid = Grid.from_spacing(shape, spacing_mm).rotated((1, 2, 3), 20.0)
    away_mm = (centres_mm(grid) - torch.from_numpy(grid.centre_mm)).square().sum(-1).sqrt()
    noise = np.random.default_rng(seed).normal(0, 3, shape)
    data = torch.where(away_mm < 45, 100 + torch.from_numpy(noise), 0.0).clamp(min=0)
    return Volume(data.round().to(torch.int16), grid)


# Mask


def test_a_given_mask_is_all_that_is_not_zero():
    scan = ball()
    assert torch.equal(masking.brain_mask(scan, "given"), scan.data != 0)
    whole = Volume(scan.data + 5, scan.grid)
    with pytest.raises(InputError, match="no air of value 0"):
        masking.brain_mask(whole, "given")
    with pytest.raises(InputError, match="none of deepbet"):
        masking.brain_mask(scan, "fsl")


def test_synthstrip_is_asked_with_files_and_its_mask_is_read(tmp_path, monkeypatch):
    program = tmp_path / masking.PROGRAM
    program.write_text('#!/bin/sh\ntest "$1 $3" = "-i -m" && cp "$2" "$4"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    scan = ball()
    assert torch.equal(masking.brain_mask(scan, "synthstrip"), scan.data > 0)
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(InputError, match="failed on this scan"):
        masking.brain_mask(scan, "synthstrip")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="not on the PATH"):
        masking.brain_mask(scan, "synthstrip")


def test_deepbet_finds_the_brain_of_a_raw_head():
    pytest.importorskip("deepbet", reason="needs the extra `preprocess`")
    heads = [e for e in local_entries("open_ms_t1") if e.kind == "head"]
    if not heads:
        pytest.skip("no raw head of open_ms_t1 is on this computer; set MEDIL_DATA_MIRROR")
    scan = load(fetch(heads[0]))
    mask = masking.brain_mask(scan)
    assert 1000 < masking.volume_ml(mask, scan) < 1700
    assert mask.shape == scan.data.shape and mask.dtype == torch.bool


# Bias field


def test_a_known_field_is_found_and_has_geometric_mean_one():
    scan = ball()
    mask = scan.data > 0
    ramp = torch.linspace(-0.4, 0.4, scan.data.shape[0])[:, None, None].exp()
    field = bias_field(Volume(scan.data * ramp, scan.grid), mask)
    assert field[mask].log().mean() == pytest.approx(0, abs=1e-4)
    left = (scan.data * ramp / field)[mask]
    assert left.std() / left.mean() < 0.06 < (scan.data * ramp)[mask].std() / 100
    assert field_range(field, mask) == pytest.approx(
        float((0.55 * ramp.log().max()).exp() ** 2), rel=0.25
    )


def test_too_few_bright_voxels_have_no_field():
    scan = ball()
    with pytest.raises(InputError, match="fewer than 1000"):
        bias_field(scan, torch.zeros(scan.data.shape, dtype=torch.bool))


# Alignment


def test_a_turned_head_is_turned_back():
    template = mni152_template()
    turned = template.grid.rotated((1, 2, 0.5), 14.0).shifted((12.0, -9.0, 6.0))
    scan = Volume(template.data, turned)
    rigid = aligning.alignment(scan, template.data > 0)
    back = rigid @ turned.affine_vox2ras @ np.linalg.inv(template.grid.affine_vox2ras)
    assert aligning.rotation_deg(back) < 2.0
    middle = np.append(template.grid.centre_mm, 1.0)
    assert np.linalg.norm((back @ middle - middle)[:3]) < 2.0
    assert np.linalg.det(rigid[:3, :3]) == pytest.approx(1.0)


def test_a_sheared_grid_is_not_aligned():
    scan = ball()
    affine = scan.grid.affine_vox2ras.copy()
    affine[0, 1] += 1.0
    with pytest.raises(InputError, match="sheared"):
        aligning.alignment(Volume(scan.data, Grid(scan.grid.shape, affine)), scan.data > 0)


def test_alignment_leaves_the_stored_bytes_and_says_so_in_the_header(tmp_path, monkeypatch):
    rigid = np.eye(4)
    rigid[:3, :3] = Grid.from_spacing((2, 2, 2), 1.0).rotated((0, 0, 1), 50.0).directions
    rigid[:3, 3] = 4.0
    monkeypatch.setattr(pipeline, "alignment", lambda *_: rigid)
    scan = save(ball(), tmp_path / "sub-01_T1w.nii.gz")
    stored = nib.load(scan)
    lps = nib.Nifti1Image(
        np.asarray(stored.dataobj)[::-1, :, ::-1], stored.affine @ np.diag([-1.0, 1, -1, 1])
    )
    nib.save(lps, scan)
    (done,) = preprocess([Listed(scan)], tmp_path / "out", Steps("given", bias=False))
    made = nib.load(tmp_path / "out/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz")
    assert np.asarray(made.dataobj).tobytes() == np.asarray(lps.dataobj).tobytes()
    assert made.get_data_dtype() == lps.get_data_dtype()
    np.testing.assert_allclose(made.affine, rigid @ lps.affine, atol=1e-4)
    assert made.header["sform_code"] == made.header["qform_code"] == ALIGNED
    assert done.facts["rotation_deg"] == pytest.approx(50.0)


# Folders


@pytest.fixture
def raw(tmp_path):
    """A folder of two scans."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for k in (1, 2):
        save(ball(seed=k), folder / f"sub-0{k}_ses-a_T1w.nii.gz")
    return folder


def test_a_folder_becomes_a_derivative_with_a_page(raw, tmp_path):
    out = tmp_path / "out"
    done = preprocess(list_images([raw]).images, out, GIVEN)
    assert [one.name for one in done] == ["sub-01_ses-a", "sub-02_ses-a"]
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    anat = out / "sub-02/ses-a/anat"
    facts = json.loads((anat / "sub-02_ses-a_desc-preproc_T1w.json").read_text())
    assert facts["steps"] == {"strip": "given", "bias": False, "align": False}
    assert facts["Sources"] == ["sub-02_ses-a_T1w.nii.gz"] and len(facts["sha256_of_source"]) == 64
    brain, mask = (
        load(anat / f"sub-02_ses-a_desc-{end}.nii.gz") for end in ("preproc_T1w", "brain_mask")
    )
    assert brain.grid == mask.grid and torch.equal(brain.data != 0, mask.data != 0)
    page = (out / PAGE).read_text()
    assert "2 scans, 2 with a flag, 0 failed" in page and "sub-01_ses-a" in page
    assert (out / "figures/sub-01_ses-a.png").exists()


def test_a_second_call_prepares_only_what_changed(raw, tmp_path, monkeypatch):
    made, prepare = [], pipeline.prepare

    def counted(scan, steps):
        made.append(steps)
        return prepare(scan, steps)

    monkeypatch.setattr(pipeline, "prepare", counted)
    scans, out = list_images([raw]).images, tmp_path / "out"
    first, again = preprocess(scans, out, GIVEN), preprocess(scans, out, GIVEN)
    assert len(made) == 2 and first == again
    save(ball(seed=7), raw / "sub-01_ses-a_T1w.nii.gz", force=True)
    preprocess(scans, out, GIVEN)
    assert len(made) == 3
    monkeypatch.setattr(pipeline, "bias_field", lambda scan, mask: torch.ones(scan.data.shape))
    preprocess(scans, out, Steps("given", align=False))
    assert len(made) == 5


def test_a_sidecar_with_a_changed_byte_is_made_again(raw, tmp_path):
    scans, out = list_images([raw]).images, tmp_path / "out"
    done = preprocess(scans, out, GIVEN, pictures=False)
    sidecar = next(out.rglob("sub-01*.json"))
    whole = sidecar.read_text()
    for damaged in (whole.replace('"brain_ml": ', '"brain_ml": 1'), whole[:-40], "[]"):
        sidecar.write_text(damaged)
        assert preprocess(scans, out, GIVEN, pictures=False) == done
        assert sidecar.read_text() == whole
    without = {name: value for name, value in json.loads(whole).items() if name != SUM}
    sidecar.write_text(json.dumps(without))  # as releases up to 0.6.0 wrote it
    assert preprocess(scans, out, GIVEN, pictures=False) == done
    assert SUM not in sidecar.read_text()


def test_a_scan_that_fails_leaves_nothing_and_the_others_go_on(raw, tmp_path, run_medil):
    bad = raw / "sub-03_T1w.nii.gz"
    shutil.copy(raw / "sub-01_ses-a_T1w.nii.gz", bad)
    whole = load(bad)
    save(Volume(whole.data + 1, whole.grid), bad, force=True)
    out = tmp_path / "out"
    code, said, err = run_medil(
        "preprocess", raw, "-o", out, "--strip", "given", "--no-bias", "--no-align"
    )
    assert code == 2 and "sub-03: " in err and "1 of 3 scans failed" in err
    assert "2 prepared scans" in said and err.count("\n") == 1
    assert not list(out.rglob("sub-03*")) and "no air of value 0" in (out / PAGE).read_text()


def test_workers_of_a_scheduler_prepare_scans_and_a_second_call_goes_on(
    raw, tmp_path, run_medil, monkeypatch
):
    distributed = pytest.importorskip("distributed", reason="needs the extra `dask`")
    bad = raw / "sub-03_T1w.nii.gz"
    bad.write_bytes((raw / "sub-01_ses-a_T1w.nii.gz").read_bytes()[:3000])
    monkeypatch.chdir(tmp_path)
    command = ["preprocess", "raw", "-o", "out", "--strip", "given", "--no-bias", "--no-align",
               "--no-pictures", "--scheduler"]  # fmt: skip
    code, _, err = run_medil(*command, "tcp://127.0.0.1:9")
    assert code == 2 and "no Dask scheduler answers" in err and err.count("\n") == 1
    with distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        code, said, err = run_medil(*command, cluster.scheduler_address)
        assert code == 2 and "2 prepared scans" in said and "1 of 3 scans failed" in err
        assert "sub-03: " in err and err.count("\n") == 1
        made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")}
        bad.unlink()
        killed = min(made).with_name(".part-0123-sub-01_desc-brain_mask.nii.gz")
        killed.write_bytes(b"half")  # by a worker
        code, said, _ = run_medil(*command, cluster.scheduler_address)
    assert not killed.exists()
    assert code == 0 and "2 prepared scans" in said and len(made) == 4
    assert made == {path: path.stat().st_mtime_ns for path in made}
    assert not list((tmp_path / "out").rglob("*.png"))
    code, _, err = run_medil(*command, cluster.scheduler_address, "--jobs", 2)
    assert code == 2 and "leave it out with --scheduler" in err


def test_bytes_are_read_again_only_where_size_or_time_changed(raw, tmp_path, monkeypatch):
    scans, out, read = list_images([raw]).images, tmp_path / "out", []
    preprocess(scans, out, GIVEN, pictures=False)
    sha256 = pipeline.file_sha256
    monkeypatch.setattr(pipeline, "file_sha256", lambda path: read.append(path) or sha256(path))
    monkeypatch.setattr(pipeline, "prepare", None)
    preprocess(scans, out, GIVEN, pictures=False)
    assert read == []
    os.utime(scans[0].path, ns=(0, 0))
    done = preprocess(scans, out, GIVEN, pictures=False)
    assert read == [scans[0].path] and not any(one.failed for one in done)


def test_a_worker_without_the_disk_says_so(raw, tmp_path):
    scan, _ = list_images([raw]).images
    with pytest.raises(InputError, match="all machines need the same disk"):
        pipeline._one("sub-01", scan, tmp_path / "nowhere", GIVEN, True)


def test_outputs_of_others_and_names_that_meet_are_refused(raw, tmp_path):
    scans = list_images([raw]).images
    with pytest.raises(InputError, match="is not empty"):
        preprocess(scans, raw, GIVEN)
    other = tmp_path / "bids"
    other.mkdir()
    (other / "dataset_description.json").write_text('{"Name": "mine"}')
    with pytest.raises(InputError, match="another data set"):
        preprocess(scans, other, GIVEN)
    twice = [Listed(raw / "sub-01_ses-a_T1w.nii.gz"), Listed(raw / "sub-01_ses-a_T1w.nii")]
    with pytest.raises(InputError, match="would both become sub-01_ses-a"):
        preprocess(twice, tmp_path / "out", GIVEN)
    with pytest.raises(InputError, match="no letter or digit"):
        output_name(Listed(raw / "(_).nii"))


def test_what_is_odd_is_flagged():
    scan = ball()
    mask = torch.ones(scan.data.shape, dtype=torch.bool)
    found = quality.flags(
        {"brain_ml": 300.0, "bias_field_range": 4.0, "rotation_deg": 44.0}, mask,
        Volume(scan.data, Grid.from_spacing(scan.grid.shape, (1, 1, 6))),
    )  # fmt: skip
    for words in ("300 ml", "strong (4.0)", "44 degrees", "6.0 mm thick", "touches the edge"):
        assert any(words in flag for flag in found)
    inside = torch.zeros(scan.data.shape, dtype=torch.bool)
    inside[5:-5, 5:-5, 5:-5] = True
    assert quality.flags({"brain_ml": 1200.0, "rotation_deg": 9.0}, inside, scan) == []


def test_manifests_have_a_raw_head_to_try():
    assert any(e.kind == "head" for e in entries("open_ms_t1"))
