"""`medil.data.samples`: the real scan where it is, an honest stand-in where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import requests

from medil.data import manifest
from medil.data.samples import SCAN, mni152_template, real_scan
from medil.errors import InputError


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No mirror, an empty cache, no network."""

    def get(*_, **__):
        raise requests.ConnectionError("no network")

    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path))
    monkeypatch.delenv("MEDIL_DATA_MIRROR", raising=False)
    monkeypatch.setattr(requests, "get", get)
    return tmp_path


def test_the_real_scan_comes_on_its_native_grid_and_says_whose_it_is(mirror):
    volume, sentence = real_scan()
    assert volume.grid.shape == (320, 320, 39)
    np.testing.assert_allclose(volume.grid.spacing_mm, (0.719, 0.719, 3.0), atol=1e-3)
    assert volume.grid.orientation == "RAS" and volume.source.orientation == "LPS"
    assert "longitudinal_patient01" in sentence and "CC-BY" in sentence


def test_the_scan_belongs_to_a_subject_that_training_never_sees():
    entry = next(e for e in manifest.entries("open_ms_t1") if e.path == SCAN)
    trained_on = {e.subject for e in manifest.entries("open_ms_t1", "train")}
    assert entry.split == "test" and entry.subject not in trained_on


def test_without_file_and_network_tilted_slices_of_the_template_stand_in(nowhere):
    volume, sentence = real_scan()
    assert "MNI152" in sentence and sentence.count(".") == 1
    np.testing.assert_allclose(volume.grid.spacing_mm, (0.9, 0.9, 3.0), atol=1e-3)
    assert volume.grid.orientation == "RAS" and volume.source.orientation == "LPS"
    assert np.degrees(np.arccos(volume.grid.directions[2, 2])) > 5
    template = mni152_template()
    middle = [v.grid.index_to_ras((v.data > 2000).nonzero().double().mean(0).numpy())
              for v in (volume, template)]  # fmt: skip
    np.testing.assert_allclose(*middle, atol=1.0)  # the brain stays where it was, in mm


def test_a_damaged_copy_is_an_error_and_not_replaced_by_the_template(nowhere):
    (nowhere / SCAN).parent.mkdir()
    (nowhere / SCAN).write_bytes(b"not the published bytes")
    with pytest.raises(InputError, match="published bytes"):
        real_scan()


def test_the_template_s_brain_lies_around_its_world_s_origin():
    template = mni152_template()
    inside = template.data > 0
    index_vox = np.rint(template.grid.ras_to_index(np.zeros(3))).astype(int)
    assert inside[tuple(index_vox)]
    middle_mm = template.grid.index_to_ras(inside.nonzero().double().mean(0).numpy())
    assert abs(middle_mm[0]) < 3.0  # left and right weigh the same
    assert not inside[0].any() and not inside[:, 0].any()
