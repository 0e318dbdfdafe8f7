"""The training set: which subjects a step sees, where they come from, and what stays out."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from medil.config import DataConfig
from medil.data import manifest
from medil.errors import InputError
from medil.training import dataset as pool
from medil.training.dataset import (
    cohort_settings,
    draw_cohort,
    real_scans,
    subject_path,
    training_maps,
    training_scans,
)
from tests.images import write_nifti

COHORT = DataConfig(subjects=2, real_share=0.0)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Two label maps: a ball of white matter in cortex, and a smaller one."""
    folder = tmp_path_factory.mktemp("maps")
    radius = np.linalg.norm(np.indices((24, 26, 22)).transpose(1, 2, 3, 0) - [12, 13, 11], axis=-1)
    sizes = {"large": (10.0, 6.0), "small": (8.0, 5.0)}
    return [
        write_nifti(
            folder / f"{name}.nii.gz",
            (3 * (radius < outer) - 1 * (radius < inner)).astype(np.uint8),
            np.diag([2.0, 2.0, 2.0, 1.0]),
        )
        for name, (outer, inner) in sizes.items()
    ]


@pytest.fixture(autouse=True)
def no_real_files(monkeypatch):
    """Nothing published is at hand, whatever this computer holds."""
    monkeypatch.setattr(manifest, "available", lambda entry: False)


def names(scans):
    return [scan.name for scan in scans]


def test_a_cohort_is_drawn_once_and_another_seed_draws_others(maps, tmp_path, monkeypatch):
    drawn = training_scans(COHORT, tmp_path / "c", 5, maps)
    assert names(drawn) == ["subject000", "subject001"]
    assert sum(scan.weight for scan in drawn) == pytest.approx(1)
    monkeypatch.setattr(pool, "subject", None)  # nothing is drawn again
    for draws in (True, False):  # a process that does not draw reads the files of the one that does
        again = training_scans(COHORT, tmp_path / "c", 5, maps, draws)
        for one, other in zip(drawn, again, strict=True):
            assert one.name == other.name and torch.equal(one.data, other.data)
    monkeypatch.undo()
    others = training_scans(replace(COHORT, subjects=1), tmp_path / "d", 6, maps)
    assert not torch.equal(others[0].data, drawn[0].data)


def test_a_process_that_does_not_draw_waits_for_the_files(maps, tmp_path):
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(training_scans, COHORT, tmp_path, 5, maps, False)
        time.sleep(0.2)
        assert not waiting.done()
        drawn = training_scans(COHORT, tmp_path, 5, maps)
        assert names(waiting.result(timeout=20)) == names(drawn)


def test_a_cohort_takes_turns_with_the_label_maps(maps, tmp_path, monkeypatch):
    read = []
    true_read = pool.read_anatomy
    monkeypatch.setattr(pool, "read_anatomy", lambda path: read.append(path) or true_read(path))
    draw_cohort(replace(COHORT, subjects=5), tmp_path / "c", 0, maps)
    assert read == maps  # each of them once
    volumes_mm3 = [
        int((scan.data > 0).sum()) * np.prod(scan.spacing_mm)
        for scan in (pool.read_scan(subject_path(tmp_path / "c", k), 1.0) for k in range(5))
    ]
    assert min(volumes_mm3[0::2]) > max(volumes_mm3[1::2])


def test_a_folder_of_another_cohort_is_refused(maps, tmp_path):
    one = replace(COHORT, subjects=1)
    draw_cohort(one, tmp_path, 0, maps)
    before = subject_path(tmp_path, 0).stat().st_mtime_ns
    draw_cohort(replace(one, real_share=0.2), tmp_path, 0, maps)
    assert subject_path(tmp_path, 0).stat().st_mtime_ns == before
    for config, seed, label_maps in (
        (one, 1, maps),
        (replace(one, noise=(0.1, 0.2)), 0, maps),
        (one, 0, maps[:1]),
    ):
        with pytest.raises(InputError, match="another"):
            training_scans(config, tmp_path, seed, label_maps)


# The split


def test_no_subject_is_in_both_splits():
    for name in (*pool.REAL, pool.LABELS):
        train, test = ({e.subject for e in manifest.entries(name, s)} for s in manifest.SPLITS)
        assert train and test and not train & test


def test_no_held_out_file_enters_a_pool(maps, tmp_path, monkeypatch):
    fetched = []

    def fetch(entry):
        fetched.append(entry)
        return maps[0]

    monkeypatch.setattr(manifest, "available", lambda entry: True)
    monkeypatch.setattr(manifest, "fetch", fetch)
    config = DataConfig(subjects=1, real_share=0.3)
    training_scans(config, tmp_path / "c", 0)
    held_out = {
        (name, e.subject)
        for name in (*pool.REAL, pool.LABELS)
        for e in manifest.entries(name, "test")
    }
    assert {e.dataset for e in fetched} == {*pool.REAL, pool.LABELS}
    assert {e.split for e in fetched} == {"train"}
    assert not {(e.dataset, e.subject) for e in fetched} & held_out


def test_real_scans_share_their_weight(maps, monkeypatch):
    brains = [e for e in manifest.entries("ds002748", "train")][:2]
    heads = [e for e in manifest.entries("open_ms_t1", "train")][:1]
    here = {"ds002748": brains, "open_ms_t1": heads}
    monkeypatch.setattr(manifest, "local_entries", lambda name, split: here[name])
    monkeypatch.setattr(manifest, "fetch", lambda entry: maps[entry in heads])
    scans = real_scans(DataConfig(real_share=0.25))
    total = sum(scan.weight for scan in scans)
    assert total / (1 + total) == pytest.approx(0.25)
    assert [scan.kind for scan in scans] == ["brain", "brain", "head"]
    assert {scan.weight for scan in scans} == {total / 3}
    assert real_scans(DataConfig(real_share=0.0)) == []

    weighed = real_scans(DataConfig(real_share=0.25, mix=("brain:4", "head:1")))
    assert [scan.weight / total for scan in weighed] == pytest.approx([0.4, 0.4, 0.2])
    for wrong in (("brain:1",), ("brain:1", "head:1", "chest:1")):
        with pytest.raises(InputError, match=r"data\.mix names .*'brain', 'head'"):
            real_scans(DataConfig(real_share=0.25, mix=wrong))


def test_without_published_files_the_tissue_maps_serve(maps, tmp_path, monkeypatch):
    assert training_maps() == [None]
    monkeypatch.setattr(pool, "tissue_anatomy", lambda: pool.label_anatomy(maps[0]))
    scans = training_scans(replace(COHORT, subjects=1), tmp_path / "c", 0)
    assert names(scans) == ["subject000"] and scans[0].weight == 1


# Settings


def test_most_subjects_lie_near_1_mm_and_the_rest_anywhere_asked_for():
    config = DataConfig(near_1mm_share=0.7, slice_mm=(2.0, 5.0), max_tilt_deg=11.0)
    settings = [cohort_settings(config, k) for k in range(200)]
    near = [s for s in settings if s.spacing_mm == (0.9, 1.1)]
    assert len(near) == pytest.approx(140, abs=2)
    assert all(s.isotropic_share == 1.0 for s in near)
    assert {(s.slice_mm, s.max_tilt_deg, s.noise) for s in settings} == {
        ((2.0, 5.0), 11.0, config.noise)
    }


def test_several_processes_draw_the_cohort_that_one_draws(maps, tmp_path):
    config = replace(COHORT, subjects=4)
    draw_cohort(config, tmp_path / "one", 0, maps)
    draw_cohort(config, tmp_path / "two", 0, maps, processes=2)
    for k in range(4):
        one, two = (subject_path(tmp_path / name, k).read_bytes() for name in ("one", "two"))
        assert one == two
