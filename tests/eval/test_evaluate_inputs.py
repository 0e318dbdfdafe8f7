"""A user's own scans: found in files, folders and tables, refused in a sentence, masked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eval.evaluate import EXPERIMENT
from eval.evaluate import inputs as evaluate_inputs
from eval.evaluate.inputs import Plan
from medil.errors import InputError
from medil.grid import Grid
from medil.io.listing import Listed
from medil.volume import Volume, save
from tests.images import ball, head, write_nifti


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two scans, a hidden file and a note."""
    place = tmp_path / "scans"
    place.mkdir()
    for name in ("b.nii.gz", "a.nii"):
        save(head(seed=len(name)), place / name)
    (place / "._a.nii").write_text("a file manager's")
    (place / "notes.txt").write_text("not an image")
    return place


# Finding


def test_a_folder_gives_its_images_sorted_and_nothing_hidden(folder):
    found = evaluate_inputs.find([folder])[0]
    assert [(f.name, f.path.name) for f in found] == [("a", "a.nii"), ("b", "b.nii.gz")]
    assert all(f.path.is_absolute() for f in found)


def test_a_folder_is_searched_deeper_only_when_it_holds_no_image(folder, tmp_path):
    assert [f.name for f in evaluate_inputs.find([tmp_path])[0]] == ["a", "b"]
    save(head(), tmp_path / "top.nii")
    assert [f.name for f in evaluate_inputs.find([tmp_path])[0]] == ["top"]


def test_a_pattern_gives_what_matches_it(folder):
    assert [f.name for f in evaluate_inputs.find([folder / "b*"])[0]] == ["b"]
    with pytest.raises(InputError, match="does not exist"):
        evaluate_inputs.find([folder / "c*"])


def test_paths_in_a_table_are_relative_to_it_and_subjects_rename(folder, monkeypatch):
    table = folder / "list.csv"
    table.write_text("\ufeffsubject,path,mask\nfirst,a.nii,b.nii.gz\n,b.nii.gz,\n", "utf-8")
    monkeypatch.chdir("/")
    (first, second), _ = evaluate_inputs.find([table])
    assert (first.name, first.path, first.mask) == ("first", folder / "a.nii", folder / "b.nii.gz")
    assert (second.name, second.mask) == ("b", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [("path\n", "names no volume"), ("file\na.nii\n", "no column called 'path'"),
     ("", "no column"), ("subject,path\nx,\n", "line 2 names no path")],
)  # fmt: skip
def test_bad_tables_are_refused(folder, text, words):
    (folder / "list.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        evaluate_inputs.find([folder / "list.csv"])


def test_bad_places_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        evaluate_inputs.find([tmp_path / "empty"])
    with pytest.raises(InputError, match="does not exist"):
        evaluate_inputs.find([tmp_path / "gone"])
    with pytest.raises(InputError, match="unknown extension"):
        evaluate_inputs.find([folder / "notes.txt"])
    (tmp_path / "a.nii").write_bytes((folder / "a.nii").read_bytes())
    with pytest.raises(InputError, match=r"two volumes are called 'a'.*column 'subject'"):
        evaluate_inputs.find([folder, tmp_path / "a.nii"])


# Checking


def test_what_cannot_be_evaluated_is_named(folder, tmp_path):
    cases = {
        "cut.nii.gz": ((folder / "b.nii.gz").read_bytes()[:900], "not a whole, readable"),
        "text.nii": (b"no image" * 99, "not a whole, readable"),
    }
    for name, (data, words) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.*{words}"):
            evaluate_inputs.check(Listed(tmp_path / name, "x"))
    flat = Volume(torch.full((16, 16, 16), 7.0), Grid.from_spacing((16, 16, 16), 1.0))
    small = Volume(torch.rand(16, 16, 4), Grid.from_spacing((16, 16, 4), 1.0))
    for name, volume, words in (("flat", flat, "constant"), ("small", small, "too few")):
        save(volume, tmp_path / f"{name}.nii")
        with pytest.raises(InputError, match=f"{name}.nii.*{words}"):
            evaluate_inputs.check(Listed(tmp_path / f"{name}.nii", "x"))
    write_nifti(tmp_path / "four.nii", np.zeros((13, 14, 15, 2), np.int16), np.eye(4))
    with pytest.raises(InputError, match=r"four\.nii.*4-D"):
        evaluate_inputs.check(Listed(tmp_path / "four.nii", "x"))


def test_a_mask_must_lie_on_the_scans_grid(folder, tmp_path):
    save(head((12, 26, 28)), tmp_path / "other.nii")
    entry = Listed(folder / "a.nii", "a", mask=tmp_path / "other.nii")
    with pytest.raises(InputError, match=r"a\.nii: its mask other\.nii lies on another grid"):
        evaluate_inputs.check(entry)


def test_a_given_mask_is_used_and_changes_the_data_digest(folder, tmp_path):
    volume = head(seed=len("a.nii"))
    mask = torch.from_numpy(ball(volume.grid, 0.2)).to(torch.uint8)
    save(Volume(mask, volume.grid), tmp_path / "mask.nii")
    plain = evaluate_inputs.check(Listed(folder / "a.nii", "a"))
    masked = evaluate_inputs.check(Listed(folder / "a.nii", "a", mask=tmp_path / "mask.nii"))
    assert (plain.rule, masked.rule) == ("threshold", "given")
    assert plain.data_sha256 != masked.data_sha256
    assert evaluate_inputs.read(masked).mask.sum() == int(mask.sum())


def test_stripped_scans_are_told_from_raw_ones_by_what_they_hold():
    raw = head().data.double().numpy()
    inside = ball(head().grid)
    stripped = np.where(inside, raw + 1, 0.0)
    assert not evaluate_inputs.is_stripped(raw)
    mask, rule = evaluate_inputs.content_mask(stripped)
    assert rule == "zeros"
    np.testing.assert_array_equal(mask, inside)
    signed = np.where(inside, raw - 400, 0.0)  # a z-scored brain: half of it below zero
    mask, rule = evaluate_inputs.content_mask(signed)
    assert rule == "zeros" and (mask == inside).mean() > 0.999
    mask, rule = evaluate_inputs.content_mask(raw - 1000)  # air at -1000, as in CT
    assert rule == "threshold"
    assert (mask & inside).sum() > 0.9 * inside.sum()
    assert (mask & ~inside).sum() < 0.4 * inside.sum()


def test_warnings_say_only_what_was_measured():
    grid = Grid.from_spacing((24, 24, 24), 2.0)
    inside = ball(grid, 0.42)
    depth = 30 - np.sqrt(sum((a - 11.5) ** 2 for a in np.meshgrid(*[np.arange(24)] * 3)))
    bright_inside = np.where(inside, depth, 0.0)
    assert evaluate_inputs.warnings_about(bright_inside, inside, "zeros", grid) == []
    dark_inside = np.where(inside, 40 - depth, 0.0)
    (told,) = evaluate_inputs.warnings_about(dark_inside, inside, "zeros", grid)
    assert "rim of the brain is brighter" in told
    thick = Grid.from_spacing((24, 24, 24), (1.0, 1.0, 4.0))
    told = " ".join(
        evaluate_inputs.warnings_about(bright_inside - 1000, ~inside, "threshold", thick, 3)
    )
    assert "4.0 times as long" in told and "3 voxels were NaN" in told and "as in CT" in told


def test_a_scan_of_the_training_set_is_recognised_by_its_bytes():
    from medil.data.manifest import entries

    assert evaluate_inputs.seen_in_training(entries("open_ms_t1", "train")[0].sha256)
    assert not evaluate_inputs.seen_in_training(entries("open_ms_t1", "test")[0].sha256)


def test_a_plan_is_read_as_it_was_written(folder, tmp_path):
    found = tuple(evaluate_inputs.check(f) for f in evaluate_inputs.find([folder])[0])
    plan = Plan("tiny", ("mine.py:make",), found)
    evaluate_inputs.write_plan(plan, tmp_path / "plan.json")
    assert evaluate_inputs.read_plan(tmp_path / "plan.json") == plan
    assert evaluate_inputs.read_plan(tmp_path / "none.json") is None


def test_one_broken_file_among_many_stops_it_before_any_work(folder, tmp_path, capsys):
    (folder / "broken.nii").write_text("no image" * 99)
    assert EXPERIMENT.main([str(folder), "--out", str(tmp_path / "report")]) == 2
    assert "broken.nii" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_dicom_folder_is_read_as_its_volumes_under_names_of_nobody(tmp_path):
    pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")
    from tests import dicom_files

    slices = head().data.round().numpy().astype(np.uint16)
    for number in (4, 5):
        for k in range(24):
            one = dicom_files.slice_of(
                np.ascontiguousarray(slices[:, :, k] + number), (0, 0, 3.0 * k), number=number,
                series=f"1.{number}", StudyInstanceUID="1.2",
            )  # fmt: skip
            dicom_files.write(tmp_path / "QUISLING" / f"{number}-{k}", one)
    inputs, remarks = evaluate_inputs.find([tmp_path / "QUISLING"])
    checked = [evaluate_inputs.check(entry) for entry in inputs]
    assert [c.name.partition("_")[2] for c in checked] == ["series-4", "series-5"]
    assert not remarks and checked[0].data_sha256 != checked[1].data_sha256
    assert evaluate_inputs.read(checked[1]).volume.data.max() == slices[..., :24].max() + 5
    shown = " ".join(str((c.name, c.warnings, c.orientation)) for c in checked)
    assert not [secret for secret in dicom_files.SECRETS if secret in shown]


def test_sessions_of_a_bids_data_set_are_volumes_of_their_own(tmp_path):
    for session in ("ses-01", "ses-02"):
        place = tmp_path / "sub-01" / session / "anat"
        place.mkdir(parents=True)
        save(head(), place / f"sub-01_{session}_T1w.nii")
    (tmp_path / "dataset_description.json").write_text("{}")
    assert [f.name for f in evaluate_inputs.find([tmp_path])[0]] == [
        "sub-01_ses-01", "sub-01_ses-02",
    ]  # fmt: skip
