"""The training set: which subjects a step sees, where they come from, and what stays out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medil.config import DataConfig
from medil.data import manifest
from medil.errors import InputError
from medil.training import dataset as pool
from medil.training.dataset import (
    BEHIND,
    Pool,
    cohort_settings,
    draw_cohort,
    real_scans,
    subject_path,
    training_maps,
    training_scans,
)
from tests.images import write_nifti

ENDLESS = DataConfig(subjects=2, renew_every=3, real_share=0.0)


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


@pytest.fixture
def endless(maps, tmp_path):
    made = Pool(ENDLESS, tmp_path / "endless", 5, maps)
    yield made
    made.close()


def names(scans):
    return [scan.name for scan in scans]


def test_an_endless_cohort_equals_the_subjects_drawn_one_by_one(endless, maps, tmp_path):
    steps = (0, 2, 3, 7, 8, 12)
    seen = {step: endless.scans_at(step) for step in steps}
    for step in steps:
        first = step // 3
        assert names(seen[step]) == [f"subject{k:03d}" for k in (first, first + 1)]
        assert sum(scan.weight for scan in seen[step]) == pytest.approx(1)
    assert seen[0][1] is seen[3][0]  # a subject that stays is not read again
    draw_cohort(ENDLESS, tmp_path / "alone", 5, [4, 5], maps)
    for scan in seen[12]:
        alone = pool.read_scan(tmp_path / "alone" / f"{scan.name}.nii", 0.5)
        assert torch.equal(scan.data, alone.data) and scan.spacing_mm == alone.spacing_mm
    endless._read(7)  # drawn ahead, though no step has asked for it
    left = [subject_path(endless.folder, k).exists() for k in range(4 - BEHIND)]
    assert not any(left)


def test_a_resumed_pool_takes_up_the_files_and_another_seed_draws_others(endless, maps, tmp_path):
    before = endless.scans_at(7)
    endless.close()
    resumed = Pool(ENDLESS, endless.folder, 5, maps, draws=False).scans_at(7)
    for one, other in zip(before, resumed, strict=True):
        assert one.name == other.name and torch.equal(one.data, other.data)
    fixed = Pool(replace(ENDLESS, renew_every=0), tmp_path / "fixed", 6, maps)
    assert names(fixed.scans_at(700)) == ["subject000", "subject001"]  # never renewed
    draw_cohort(ENDLESS, tmp_path / "alone", 5, [0], maps)
    alone = pool.read_scan(subject_path(tmp_path / "alone", 0), 0.5)
    assert not torch.equal(fixed.scans_at(0)[0].data, alone.data)


def test_a_dead_worker_is_replaced(endless):
    endless.scans_at(0)
    endless._worker.terminate()
    endless._worker.join()
    assert names(endless.scans_at(9)) == ["subject003", "subject004"]
    assert endless._worker.is_alive()
    endless.close()
    assert names(endless.scans_at(12)) == ["subject004", "subject005"]


def test_a_process_that_does_not_draw_waits_for_the_files(endless, maps):
    endless.scans_at(3)
    waiting = Pool(ENDLESS, endless.folder, 5, maps, draws=False)
    assert names(waiting.scans_at(3)) == ["subject001", "subject002"]
    assert waiting._worker is None


def test_a_cohort_takes_turns_with_the_label_maps(maps, tmp_path, monkeypatch):
    read = []
    true_read = pool.read_anatomy
    monkeypatch.setattr(pool, "read_anatomy", lambda path: read.append(path) or true_read(path))
    draw_cohort(replace(ENDLESS, subjects=5), tmp_path / "c", 0, None, maps)
    assert read == maps  # each of them once
    volumes_mm3 = [
        int((scan.data > 0).sum()) * np.prod(scan.spacing_mm)
        for scan in (pool.read_scan(subject_path(tmp_path / "c", k), 1.0) for k in range(5))
    ]
    assert min(volumes_mm3[0::2]) > max(volumes_mm3[1::2])


def test_a_folder_of_another_cohort_is_refused(maps, tmp_path):
    one = replace(ENDLESS, subjects=1, renew_every=0)
    draw_cohort(one, tmp_path, 0, None, maps)
    before = subject_path(tmp_path, 0).stat().st_mtime_ns
    draw_cohort(replace(one, subjects=1, renew_every=7, real_share=0.2), tmp_path, 0, None, maps)
    assert subject_path(tmp_path, 0).stat().st_mtime_ns == before
    for config, seed, label_maps in (
        (one, 1, maps),
        (replace(one, noise=(0.1, 0.2)), 0, maps),
        (one, 0, maps[:1]),
    ):
        with pytest.raises(InputError, match="another"):
            Pool(config, tmp_path, seed, label_maps).scans_at(0)


# The split


def test_no_subject_is_in_both_splits():
    for name in (pool.REAL, pool.LABELS):
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
    made = Pool(config, tmp_path / "c", 0)
    made.scans_at(0)
    held_out = {
        e.subject for name in (pool.REAL, pool.LABELS) for e in manifest.entries(name, "test")
    }
    assert {e.dataset for e in fetched} == {pool.REAL, pool.LABELS}
    assert {e.split for e in fetched} == {"train"}
    assert not {e.subject for e in fetched} & held_out


def test_real_scans_share_their_weight(maps, monkeypatch):
    monkeypatch.setattr(pool, "available_files", lambda name: maps)
    scans = real_scans(DataConfig(real_share=0.25))
    total = sum(scan.weight for scan in scans)
    assert total / (1 + total) == pytest.approx(0.25) and names(scans) == ["large", "small"]
    assert real_scans(DataConfig(real_share=0.0)) == []


def test_without_published_files_the_tissue_maps_serve(maps, tmp_path, monkeypatch):
    assert training_maps() == [None]
    monkeypatch.setattr(pool, "tissue_anatomy", lambda: pool.label_anatomy(maps[0]))
    scans = training_scans(replace(ENDLESS, subjects=1), tmp_path / "c", 0)
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
    config = replace(ENDLESS, subjects=4)
    draw_cohort(config, tmp_path / "one", 0, None, maps)
    draw_cohort(config, tmp_path / "two", 0, None, maps, processes=2)
    for k in range(4):
        one, two = (subject_path(tmp_path / name, k).read_bytes() for name in ("one", "two"))
        assert one == two
