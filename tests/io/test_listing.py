"""`medil.io.listing`: every scan once, nothing hidden, and broken links by name."""

from __future__ import annotations

import numpy as np
import pytest

from medil.errors import InputError
from medil.io.listing import list_images
from medil.volume import save
from tests.images import head, refused, write_nifti


def names(*places):
    return [image.path.name for image in list_images(places).images]


@pytest.fixture
def dataset(tmp_path):
    """A DataLad clone: sub-01 is here, the file of sub-02 was not fetched."""
    folder, store = tmp_path / "ds", tmp_path / "ds/.git/annex/objects/aa"
    store.mkdir(parents=True)
    save(head(), store / "MD5E-s1--abc.nii.gz")
    for number, key in ((1, "MD5E-s1--abc"), (2, "MD5E-s1--none")):
        place = folder / f"sub-0{number}" / "anat"
        place.mkdir(parents=True)
        target = f"../../.git/annex/objects/aa/{key}.nii.gz"
        (place / f"sub-0{number}_T1w.nii.gz").symlink_to(target)
    return folder


def test_hidden_folders_are_not_searched_and_a_broken_link_is_named(dataset):
    found = list_images([dataset])
    assert [image.path.name for image in found.images] == ["sub-01_T1w.nii.gz"]
    (sentence,) = found.left_out
    assert "sub-02_T1w.nii.gz is a link to a file that is not there" in sentence


@pytest.mark.parametrize("place", ["sub-02/anat/sub-02_T1w.nii.gz", "sub-*/anat/sub-02*"])
def test_a_broken_link_that_was_named_is_left_out_too(dataset, place):
    found = list_images([dataset / place])
    assert not found.images and len(found.left_out) == 1


def test_a_4_d_image_in_a_list_has_to_be_converted_first(tmp_path):
    pytest.importorskip("zarr", reason="zarr (extra store) is not installed")
    from medil.training.build_store import build_store

    write_nifti(tmp_path / "four.nii", np.zeros((4, 4, 4, 2), np.int16), np.eye(4))
    (sentence,) = build_store(list_images([tmp_path]).images, tmp_path / "s").failed
    assert "the image is 4-D (4 x 4 x 4 x 2); convert it first: medil convert" in sentence


def test_a_store_of_nothing_is_not_made(dataset, tmp_path, run_medil):
    pytest.importorskip("click", reason="click (extra cli) is not installed")
    result = run_medil("store", dataset / "sub-02/anat/*", "-o", tmp_path / "store")
    refused(result, "is a link to a file that is not there")
    assert not (tmp_path / "store").exists()


def test_a_scan_counts_once_however_it_is_reached(dataset):
    one = dataset / "sub-01/anat/sub-01_T1w.nii.gz"
    assert names(dataset, one, dataset / "sub-*/anat/*", one.resolve()) == [one.name]


def test_linked_folders_are_searched_and_circles_end(dataset, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(dataset / "sub-01")
    (dataset / "sub-01" / "round").symlink_to(dataset / "sub-01")
    assert names(tmp_path / "set") == ["sub-01_T1w.nii.gz"]


def test_one_file_under_two_subjects_is_refused(dataset, tmp_path):
    table = tmp_path / "list.csv"
    path = "ds/sub-01/anat/sub-01_T1w.nii.gz"
    table.write_text(f"path,subject\n{path},a\n{path},a\n")
    assert names(table) == ["sub-01_T1w.nii.gz"]
    table.write_text(f"path,subject\n{path},a\n{path},b\n")
    with pytest.raises(InputError, match="as subject 'a' and as 'b'"):
        list_images([table])


def test_a_store_holds_one_volume_and_says_what_it_lacks(dataset, tmp_path, run_medil):
    pytest.importorskip("click", reason="click (extra cli) is not installed")
    pytest.importorskip("zarr", reason="zarr (extra store) is not installed")
    code, _, err = run_medil("store", dataset, "-o", tmp_path / "store")
    assert code == 2 and "sub-02_T1w.nii.gz is a link" in err and "1 of 2 images" in err
    (volume,) = (p.name for p in (tmp_path / "store").iterdir() if p.is_dir())
    assert volume.startswith("sub-01_T1w-")
