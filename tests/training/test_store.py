"""The patch store: what is read from it, how it is built, and training from it."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.io.listing import Listed
from medil.regrid import box_average
from medil.training import build_store as building
from medil.training.build_store import CHUNK, COARSEST, build_store, claim, encoded
from medil.training.patches import global_step, patch_step, prepare_scan, random_block, shrunk
from medil.training.store import Store
from medil.volume import Intensity, load
from tests.images import killed_at_the_first_rename, write_nifti
from tests.store_images import stored_head, write_images


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images")


@pytest.fixture
def made(images, tmp_path):
    built = build_store(images, tmp_path / "store")
    assert (built.new, built.kept, built.failed) == (3, 0, [])
    return Store(tmp_path / "store")


def rng_of(seed):
    return np.random.default_rng(seed)


def in_memory(paths):
    """What `Store.scans` lists, in its order."""
    scans = [prepare_scan(load(p), 1 / len(paths), name=p.name.split(".")[0]) for p in paths]
    return sorted(scans, key=lambda scan: scan.name)


def step_of(scan):
    """Of the stored numbers, on the 0 ... 1 scale."""
    coding = scan.data.coding
    return coding.unit / (coding.intensity.high - coding.intensity.low)


# What is read


def test_random_blocks_are_those_of_a_scan_in_memory(images, made):
    for stored, scan in zip(made.scans(), in_memory(images), strict=True):
        assert stored.name == scan.name and stored.spacing_mm == scan.spacing_mm
        assert stored.weight == scan.weight == 1 / 3
        assert np.array_equal(stored.foreground[:], scan.foreground)
        exact = scan.name != "turned"  # integers lose nothing
        for seed in range(8):
            block = random_block(stored, 14.0, rng_of(seed))
            other = random_block(scan, 14.0, rng_of(seed))
            assert block.dtype == torch.float32 and block.shape == other.shape
            error = (block - other).abs().max()
            assert error == 0 if exact else 0 < error <= 0.5 * step_of(stored) + 2e-7


def test_patch_steps_are_those_of_scans_in_memory(images, made):
    for seed in range(6):
        settings = 4.0, 14.0, 2, 0.3
        step = patch_step(made.scans(), *settings, rng_of(seed))
        other = patch_step(in_memory(images), *settings, rng_of(seed))
        assert step.name == other.name and step.latent_grid == other.latent_grid
        torch.testing.assert_close(step.x, other.x, rtol=0, atol=1e-5)


def test_a_whole_volume_step_reads_the_small_copy_and_shows_the_same(images, made):
    stored, scan = made.scans()[0], in_memory(images)[0]
    assert stored.small.shape == (20, 35, 33)  # 2 mm where two voxels fit into that
    step = global_step([stored], 4.0, 8.0, rng_of(1))
    other = global_step([scan], 4.0, 8.0, rng_of(1))
    assert step.grid == other.grid and step.latent_grid == other.latent_grid
    assert (step.x - other.x).square().mean().sqrt() < 0.05 * other.x.std()  # of pooling
    small, exact = shrunk(stored, (5, 7, 4))[0], box_average(scan.data, (5, 7, 4))
    assert (small - exact).square().mean().sqrt() < 0.02 * exact.std()
    assert small.mean().item() == pytest.approx(exact.mean().item(), rel=1e-4)
    fine = global_step([stored], 4.0, 40.0, rng_of(1))  # asks for more than the copy holds
    assert torch.equal(fine.x, global_step([scan], 4.0, 40.0, rng_of(1)).x)
    slices = made.scans()[1]
    assert slices.small.shape == (16, 15, 12)


def test_a_store_knows_where_its_voxels_are(images, made):
    for path in images:
        (facts,) = [f for f in made.facts.values() if f["source"] == str(path.resolve())]
        volume = load(path)
        np.testing.assert_array_equal(facts["affine_vox2ras"], volume.grid.affine_vox2ras)
        assert facts["levels"]["data"]["shape"] == list(volume.grid.shape)


def test_chunks_and_shards_are_what_the_file_says(tmp_path, rng):
    data = rng.integers(0, 900, (70, 20, 130)).astype(np.int16)
    path = write_nifti(tmp_path / "a.nii.gz", data, np.eye(4))
    build_store([path], tmp_path / "s")
    made = Store(tmp_path / "s")
    (key,) = made.facts
    array = made.array(key, "data")
    assert array.chunks == (CHUNK, 20, CHUNK) and array.shards == (128, 20, 192)
    files = [p for p in (tmp_path / "s" / key / "data").rglob("*") if p.is_file()]
    assert len(files) == 2  # the shard and what Zarr says of it
    assert np.array_equal(array[:], data - data.min())


# Numbers


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (torch.tensor([-1024.0, 0.0, 3071.0]), None),
        (torch.tensor([0, 65535], dtype=torch.int32), None),
        (torch.tensor([0.5, 0.75, 8.0]), 0.25),
        (torch.tensor([7.0, 7.0]), None),
    ],
)
def test_numbers_of_few_levels_are_kept_exactly(values, unit):
    stored, coding = encoded(values, Intensity(0.0, 100.0), unit)
    assert stored.dtype == np.uint16
    assert torch.equal(coding.voxels(stored), Intensity(0.0, 100.0).forward(values))


def test_other_numbers_err_by_half_a_step_at_most(rng):
    values = torch.from_numpy(rng.normal(50, 30, 5000))
    intensity = Intensity(0.0, 100.0)
    stored, coding = encoded(values, intensity)
    step = float(values.max() - values.min()) / 65535 / 100
    assert stored.dtype == np.uint16 and coding.unit / 100 == pytest.approx(step)
    error = (coding.voxels(stored) - intensity.forward(values)).abs().max()
    assert 0.3 * step < error < 0.501 * step + 1e-7


def test_outliers_that_would_coarsen_the_steps_are_kept_as_float32():
    values = torch.tensor([0.25, 1.0, 65535 * COARSEST * 1.05])
    stored, coding = encoded(values, Intensity(0.0, 1.0))
    assert stored.dtype == np.float32
    assert torch.equal(coding.voxels(stored), values)
    assert encoded(values * torch.tensor([1, 1, 0.9]), Intensity(0.0, 1.0))[0].dtype == np.uint16


def test_scaled_integers_and_nan_are_stored_as_they_load(tmp_path, rng):
    raw = rng.integers(0, 4000, (9, 8, 7)).astype(np.int16)
    image = tmp_path / "scaled.nii"
    write_nifti(image, raw, np.diag([2.0, 2, 2, 1]))
    content = bytearray(image.read_bytes())
    content[112:120] = np.array([0.37, -100.0], "<f4").tobytes()  # scl_slope, scl_inter
    image.write_bytes(content)
    holes = raw.astype(np.float32)
    holes[2, 3, 4] = np.nan
    write_nifti(tmp_path / "holes.nii", holes, np.eye(4))
    build_store([image, tmp_path / "holes.nii"], tmp_path / "s", window=(-100.0, 1400.0))
    hole, scaled = Store(tmp_path / "s").scans()
    window = Intensity(-100.0, 1400.0)
    torch.testing.assert_close(
        scaled.data[...], window.forward(load(image).data), rtol=1e-6, atol=1e-6
    )
    assert scaled.data.coding.unit == pytest.approx(0.37)
    assert hole.data[2, 3, 4] == 0


# Building


def test_a_second_build_reads_nothing(images, made, tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("a file was opened again")

    monkeypatch.setattr(building, "load", never)
    monkeypatch.setattr(building, "file_sha256", never)
    built = build_store(images, tmp_path / "store")
    assert (built.new, built.kept, built.failed) == (0, 3, [])


def test_touched_and_moved_files_are_hashed_but_not_read(images, made, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "load", None)
    os.utime(images[0], (1, 1))
    moved = images[1].rename(tmp_path / "elsewhere.nii.gz")
    built = build_store([images[0], moved, images[2]], tmp_path / "store")
    assert (built.new, built.kept) == (0, 3)
    assert Store(tmp_path / "store").identity == made.identity
    monkeypatch.setattr(building, "file_sha256", None)  # both are known by now
    assert build_store([images[0], moved, images[2]], tmp_path / "store").kept == 3


def test_a_changed_file_takes_the_place_of_its_former_volume(images, made, tmp_path):
    data, grid = stored_head("even")
    write_nifti(images[0], data[::-1].copy(), grid.affine_vox2ras)
    built = build_store(images[:1], tmp_path / "store")
    after = Store(tmp_path / "store")
    assert (built.new, built.kept) == (1, 0)
    assert [s.name for s in after.scans()] == [s.name for s in made.scans()]
    assert after.identity != made.identity
    scan = after.scans()[0]
    assert torch.equal(scan.data[...], prepare_scan(load(images[0])).data)


def test_a_file_that_became_a_copy_of_another_has_no_volume_of_its_own(images, made, tmp_path):
    images[0].write_bytes(images[1].read_bytes())
    (tmp_path / "store" / "notes").mkdir()  # no volume, and left alone
    built = build_store(images, tmp_path / "store")
    assert (built.new, built.kept) == (0, 3)
    assert [s.name for s in Store(tmp_path / "store").scans()] == ["slices", "turned"]


def test_volumes_that_are_not_named_stay_and_new_ones_join(images, tmp_path):
    first = build_store(images[:1], tmp_path / "s")
    one = Store(tmp_path / "s").identity
    second = build_store([Listed(images[1], subject="sub-7"), images[2]], tmp_path / "s")
    both = Store(tmp_path / "s")
    assert first.new == 1 and second.new == 2 and both.identity != one
    assert sorted(f["subject"] for f in both.facts.values()) == ["", "", "sub-7"]
    build_store([Listed(images[0], subject="sub-8"), images[1]], tmp_path / "s")
    named = {f["name"]: f["subject"] for f in Store(tmp_path / "s").facts.values()}
    assert named == {"even": "sub-8", "slices": "sub-7", "turned": ""}


def test_bad_files_are_named_and_do_not_stop_the_others(images, tmp_path):
    constant = write_nifti(tmp_path / "flat.nii.gz", np.ones((5, 6, 7), np.int16), np.eye(4))
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(images[0].read_bytes()[:900])
    missing = tmp_path / "missing.nii.gz"
    built = build_store([constant, broken, missing, images[0]], tmp_path / "s")
    assert built.new == 1 and len(built.failed) == 3
    for sentence, path, words in zip(
        built.failed, (constant, broken, missing), ("constant", "whole", "not a file"), strict=True
    ):
        assert str(path) in sentence and words in sentence
    assert [p.name.split("-")[0] for p in (tmp_path / "s").glob("*-*")] == ["even"]


def test_a_window_above_the_image_and_another_window_are_refused(images, tmp_path):
    built = build_store(images[:1], tmp_path / "s", window=(5000.0, 6000.0))
    assert "no voxel lies above" in built.failed[0] and str(images[0]) in built.failed[0]
    with pytest.raises(InputError, match="scaled by 5000 to 6000"):
        build_store(images[:1], tmp_path / "s")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not a patch store"):
        build_store(images[:1], tmp_path / "other")


def test_a_detached_header_is_refused(tmp_path):
    (tmp_path / "a.nhdr").write_text("NRRD0004\n")
    assert "another file" in build_store([tmp_path / "a.nhdr"], tmp_path / "s").failed[0]


KILLED = """
import os, signal, sys
from medil.training import build_store as store
write = store._write_array
def killed(folder, *rest):
    write(folder, *rest)
    if folder.name == "data" and "turned" in folder.parent.name:
        os.kill(os.getpid(), signal.SIGKILL)
store._write_array = killed
store.build_store(sys.argv[2:], sys.argv[1])
"""


def test_a_killed_build_leaves_no_half_volume_and_goes_on(images, tmp_path):
    folder = tmp_path / "s"
    call = [sys.executable, "-c", KILLED, str(folder), *map(str, images)]
    assert subprocess.run(call).returncode == -signal.SIGKILL
    assert len(list(folder.glob(".part-*"))) == 1  # it was under way
    assert [s.name for s in Store(folder).scans()] == ["even", "slices"]
    built = build_store(images, folder)
    assert (built.new, built.kept) == (1, 2) and not list(folder.glob(".part-*"))
    straight = tmp_path / "straight"
    build_store(images, straight)
    assert Store(folder).identity == Store(straight).identity


def test_a_store_that_was_killed_in_its_first_write_is_begun_again(images, tmp_path):
    folder = tmp_path / "s"
    killed_at_the_first_rename(lambda: claim(folder, None))
    assert [path.name[:6] for path in folder.iterdir()] == [".part-"]
    assert build_store(images[:1], folder).new == 1
    assert not list(folder.glob(".*"))


def test_damage_is_noticed_and_named(made):
    key, other = list(made.facts)[:2]
    shard = next(p for p in (made.folder / key / "data" / "c").rglob("*") if p.is_file())
    shard.write_bytes(shard.read_bytes()[:50])
    (made.folder / other / "data" / "c").rename(made.folder / other / "gone")
    for scan, name in zip(made.scans(), (key, other), strict=False):
        with pytest.raises(InputError, match=f"{name} .* damaged"):
            random_block(scan, 9.0, rng_of(0))


def test_no_damaged_byte_of_a_volume_passes(images, tmp_path, rng):
    build_store(images[:1], tmp_path / "s")
    made = Store(tmp_path / "s")
    (key,) = made.facts
    expected = made.read(key, "data", ...)
    shard = next(p for p in (tmp_path / "s" / key / "data" / "c").rglob("*") if p.is_file())
    whole = shard.read_bytes()
    for place in rng.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[place] ^= 255
        shard.write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged"):
            Store(tmp_path / "s").read(key, "data", ...)
    shard.write_bytes(whole)
    assert (Store(tmp_path / "s").read(key, "data", ...) == expected).all()


def test_changed_metadata_of_a_volume_is_named_and_the_build_mends_it(images, tmp_path):
    folder = tmp_path / "s"
    build_store(images[:2], folder)
    before, key = Store(folder).identity, next(iter(Store(folder).facts))
    said = f"{key} .* is damaged; delete its folder and run medil store again"
    for place, old, new in (
        (folder / key, '"spacing_mm": [\n      1.0', '"spacing_mm": [\n      1.5'),
        (folder / key, '"attributes"', '"attributfs"'),
        (folder / key / "data", "uint16", "int16"),
    ):
        meta = place / "zarr.json"
        whole = meta.read_text()
        assert old in whole
        meta.write_text(whole.replace(old, new))
        with pytest.raises(InputError, match=said):
            Store(folder).read(key, "data", ...)
        meta.write_text(whole)
    (folder / key / "zarr.json").write_text("half")
    with pytest.raises(InputError, match=said):
        build_store(images[:2], folder)
    shutil.rmtree(folder / key)
    assert build_store(images[:2], folder).new == 1 and Store(folder).identity == before


def test_a_store_without_check_sums_is_read(images, tmp_path):
    folder = tmp_path / "s"
    build_store(images[:1], folder)
    before = Store(folder)
    for meta in (folder / "zarr.json", folder / next(iter(before.facts)) / "zarr.json"):
        group = json.loads(meta.read_text())
        for name in ("sha256_of_the_rest", "arrays"):
            group["attributes"].pop(name, None)
        meta.write_text(json.dumps(group))
    assert Store(folder).identity == before.identity
    (key,) = before.facts
    assert (Store(folder).read(key, "data", ...) == before.read(key, "data", ...)).all()


def test_no_store_and_no_zarr_are_one_sentence(images, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="not a patch store"):
        Store(tmp_path / "nothing")
    monkeypatch.setitem(sys.modules, "zarr", None)
    for call in (lambda: Store(tmp_path), lambda: build_store(images, tmp_path / "s")):
        with pytest.raises(InputError, match=r"pip install 'medil-book\[store\]'"):
            call()
    assert not (tmp_path / "s").exists()


# Kinds


def test_a_store_keeps_the_kind_of_each_call(images, tmp_path):
    folder = tmp_path / "kinds"
    build_store(images[:2], folder, kind="brain")
    plain = Store(folder).identity
    build_store(images[2:], folder, kind="head")
    kinds = {scan.name: scan.kind for scan in Store(folder).scans()}
    assert sorted(kinds.values()) == ["brain", "brain", "head"]
    before = Store(folder).identity
    built = build_store(images[2:], folder, kind="thick")  # a label alone: no file is read again
    assert built.new == 0 and len({plain, before, Store(folder).identity}) == 3
