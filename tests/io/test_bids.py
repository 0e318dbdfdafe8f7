"""`medil.io.bids`: images and people of a BIDS data set, and what is no BIDS."""

from __future__ import annotations

import pytest

from medil.errors import InputError
from medil.io.bids import read_bids
from medil.io.covariates import Covariates
from medil.io.listing import list_images

FILES = (
    "sub-02/anat/sub-02_T1w.nii",
    "sub-01/ses-02/anat/sub-01_ses-02_acq-mprage_rec-norm_run-2_echo-1_part-mag_T1w.nii.gz",
    "sub-01/ses-02/anat/sub-01_ses-02_T2w.nii.gz",
    "sub-01/ses-01/anat/sub-01_ses-01_ce-gd_T1w.nii.gz",
    "sub-01/ses-01/func/sub-01_ses-01_task-rest_bold.nii.gz",
    "sub-01/ses-01/anat/.sub-01_ses-01_T1w.nii.gz",
    "derivatives/fmriprep/sub-02/anat/sub-02_space-MNI152_desc-preproc_T1w.nii.gz",
    "sourcedata/sub-02_T1w.nii.gz",
    ".git/annex/objects/aa/sub-03_T1w.nii.gz",
)
PEOPLE = (
    "\ufeffparticipant_id\tage\tsex\tgroup\n"
    "sub-01\t39.5\tf\tpatient\nsub-02\t89+\tM\tn/a\nsub-09\tn/a\tn/a\tn/a\n"
)


@pytest.fixture
def dataset(tmp_path):
    """Two people, one of them seen twice; derivatives, and files that do not count."""
    root = tmp_path / "ds"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "dataset_description.json").write_text("{}")
    (root / "participants.tsv").write_text(PEOPLE, "utf-8")
    return root


def named(found):
    return {image.name: image for image in found.images}


def test_names_keep_all_entities_and_sessions_share_a_subject(dataset):
    found = named(list_images([dataset]))
    assert {name: image.subject for name, image in found.items()} == {
        "sub-01_ses-01_ce-gd": "sub-01",
        "sub-01_ses-02_acq-mprage_rec-norm_run-2_echo-1_part-mag": "sub-01",
        "sub-02": "sub-02",
    }
    assert found["sub-02"].path == dataset / FILES[0]


def test_age_and_sex_come_from_the_participants_and_what_was_read_is_said(dataset):
    found = list_images([dataset])
    people = {image.subject: image.covariates for image in found.images}
    assert people == {"sub-01": Covariates(39.5, "F"), "sub-02": Covariates(89.0, "M")}
    (note,) = found.notes
    assert note.endswith("participants.tsv, line 3: age '89+' is read as 89, its lower bound.")


def test_a_session_has_its_own_age(dataset):
    table = dataset / "sub-01" / "sub-01_sessions.tsv"
    table.write_text("session_id\tage\nses-01\t39\nses-02\t41\n")
    ages = {i.name[:13]: i.covariates for i in list_images([dataset]).images}
    assert ages["sub-01_ses-01"] == Covariates(39.0, "F")
    assert ages["sub-01_ses-02"] == Covariates(41.0, "F")


@pytest.mark.parametrize(
    ("place", "names"),
    [("sub-02", ["sub-02"]), ("sub-01/ses-01", ["sub-01_ses-01_ce-gd"]), ("sub-0[2-9]", ["sub-02"])]
)  # fmt: skip
def test_a_subject_or_a_session_is_a_part_of_its_data_set(dataset, place, names):
    found = list_images([dataset / place])
    assert [image.name for image in found.images] == names
    assert found.images[0].covariates.age_years


def test_another_suffix_can_be_chosen_and_those_there_are_named(dataset):
    assert list(named(list_images([dataset], suffix="T2w"))) == ["sub-01_ses-02"]
    with pytest.raises(
        InputError, match=r"without an image .*_FLAIR.*there are 3 T1w, 1 T2w: pass"
    ):
        list_images([dataset], suffix="FLAIR")


def test_a_derivative_is_read_when_it_is_named(dataset):
    derivative = dataset / "derivatives" / "fmriprep"
    (derivative / "dataset_description.json").write_text('{"DatasetType": "derivative"}')
    found = named(list_images([derivative]))
    assert list(found) == ["sub-02_space-MNI152_desc-preproc"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sub-02_brain_T1w.nii", "made of key-label pairs"),
        ("sub-02_hand-left_T1w.nii", "'hand' is no entity"),
        ("sub-02_run-1_acq-a_T1w.nii", "in the order sub, acq, run"),
        ("sub-02_run-1_run-2_T1w.nii", "should stand once"),
        ("sub-03_T1w.nii", "another subject or session than its folder, sub-02"),
        ("sub-02_ses-01_T1w.nii", "another subject or session than its folder, sub-02"),
        ("sub-02_part-phase_T1w.nii", "the phase part of a complex image"),
        ("T1w.nii", "made of key-label pairs"),
    ],
)
def test_an_image_with_another_name_is_left_out(dataset, name, words):
    (dataset / "sub-02" / "anat" / name).touch()
    found = list_images([dataset])
    (sentence,) = found.left_out
    assert words in sentence and name in sentence
    assert len(found.images) == 3


def test_a_broken_link_is_left_out(dataset):
    link = dataset / "sub-02" / "anat" / "sub-02_run-2_T1w.nii"
    link.symlink_to("../../.git/annex/none")
    found = list_images([dataset])
    assert found.left_out == [f"{link} is a link to a file that is not there."]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id\tage\nsub-01\t3\n", "no column called 'participant_id'"),
        ("participant_id\tage\nsub-01\t3\nsub-01\t4\n", "line 3 names 'sub-01' again"),
        ("participant_id\tage\nsub-01\n", "line 2 has 1 cells, and the first line 2"),
    ],
)
def test_a_damaged_table_of_participants_is_refused(dataset, text, words):
    (dataset / "participants.tsv").write_text(text)
    with pytest.raises(InputError, match=words):
        list_images([dataset])


def test_what_cannot_be_used_of_participants_is_left_out_in_one_note(dataset):
    lines = ("participant_id\tage\tsex", "sub-01\t20-25\tF", "sub-07\told\t1")
    (dataset / "participants.tsv").write_text("\n".join(lines))
    found = read_bids(dataset)
    assert {i.subject: i.covariates.facts() for i in found.images} == {
        "sub-01": {"sex": "F"}, "sub-02": {},
    }  # fmt: skip
    unusable, unnamed = found.notes
    assert "line 2: age '20-25' is no number of years, and is left out; 2 more" in unusable
    assert "has no line for sub-02." in unnamed


def test_a_real_data_set(mirror):
    root = mirror / "ds002748"
    if not root.is_dir():
        pytest.skip("the mirror holds no ds002748")
    found = list_images([root])
    assert len(found.images) == 46 and not found.left_out and not found.notes
    first = found.images[0]
    assert (first.name, first.subject, first.covariates) == ("sub-01",) * 2 + (Covariates(39, "M"),)
    assert all(19 <= image.covariates.age_years <= 55 for image in found.images)
