"""`medil.anatomy.packed`: label maps in one small file, the same bytes every time."""

from __future__ import annotations

import lzma

import numpy as np
import pytest

from medil.anatomy import packed
from medil.anatomy.classes import NUMBER
from medil.anatomy.packed import midplane, pack, packed_map, packed_maps, read_packed
from medil.data.manifest import entries
from medil.data.releases import RELEASES, release_path
from medil.data.samples import label_map_paths
from medil.errors import InputError
from tests.images import write_nifti


@pytest.fixture
def two_maps(tmp_path):
    """Two small FreeSurfer maps: white matter in cortex on both sides, in CSF in skull."""
    paths = []
    for k in range(2):
        labels = np.zeros((30, 24, 22), dtype=np.int32)
        labels[2:28, 2:22, 2:20] = 507
        labels[3:27, 3:21, 3:19] = 24
        labels[5:15, 5:19, 5:17], labels[15:25, 5:19, 5:17] = 3, 42
        labels[7:15, 7:17, 7 + k : 15], labels[15:23, 7:17, 7:15] = 2, 41
        paths.append(write_nifti(tmp_path / f"seg_{k}.nii.gz", labels, np.diag([1, 1, 1, 1.0])))
    return paths


def test_packed_maps_come_back_and_the_bytes_depend_on_the_maps_alone(two_maps, tmp_path):
    path = pack(two_maps, tmp_path / "a.npz.xz")
    again = pack(two_maps, tmp_path / "b.npz.xz")
    assert path.read_bytes() == again.read_bytes()
    first, second = read_packed(path)
    assert (first.name, second.name) == ("seg_0", "seg_1")
    assert first.tissues.volumes_ml()["cortex"] + first.tissues.volumes_ml()["white matter"] == (
        pytest.approx(20 * 14 * 12 / 1000)
    )
    assert first.tissues.volumes_ml()["csf"] == 0  # drawn later, with the rim
    assert first.tissues.grid == packed_map(two_maps[0]).tissues.grid
    right, _, _, offset = first.midplane
    assert (right, -offset / right) == (pytest.approx(1, abs=0.02), pytest.approx(14.5, abs=0.5))


def test_the_midplane_lies_between_the_sides(rng):
    normal = np.array([0.98, 0.15, -0.1]) / np.linalg.norm([0.98, 0.15, -0.1])
    points = rng.uniform(-60, 60, size=(4000, 3))
    side = points @ normal - 4
    *found, offset = midplane(points[side < -3], points[side > 3])
    assert np.degrees(np.arccos(found @ normal)) < 5
    assert ((points @ found + offset > 0) == (side > 0)).mean() > 0.96


def test_what_cannot_be_packed_or_read_is_refused(two_maps, tmp_path):
    only_left = np.zeros((8, 8, 8), dtype=np.int32)
    only_left[2:6, 2:6, 2:6] = 2
    with pytest.raises(InputError, match="both hemispheres"):
        pack([write_nifti(tmp_path / "left.nii.gz", only_left, np.eye(4))], tmp_path / "c.npz.xz")
    assert not (tmp_path / "c.npz.xz").exists()
    (tmp_path / "c.npz.xz").write_bytes(b"something else")
    with pytest.raises(InputError, match="does not hold packed anatomies"):
        read_packed(tmp_path / "c.npz.xz")


@pytest.mark.parametrize("keep", [1, 20, -20, -1])
def test_a_damaged_file_is_refused_in_one_sentence(two_maps, tmp_path, keep):
    content = lzma.decompress(pack(two_maps, tmp_path / "a.npz.xz").read_bytes())
    (tmp_path / "b.npz.xz").write_bytes(lzma.compress(content[:keep]))
    with pytest.raises(InputError, match=r"does not hold packed anatomies, or is damaged\.$"):
        read_packed(tmp_path / "b.npz.xz")


def test_a_file_that_inflates_without_end_is_refused(two_maps, tmp_path, monkeypatch):
    path = pack(two_maps, tmp_path / "a.npz.xz")
    monkeypatch.setattr(packed, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="does not hold packed anatomies"):
        read_packed(path)


def test_the_release_holds_the_train_maps_alone_and_is_small():
    names = [m.name for m in packed_maps()]
    assert names == [
        e.path.split("/")[-1].split(".")[0] for e in entries("synthseg_labels", "train")
    ]
    assert release_path("anatomies").stat().st_size < 4e6
    assert (RELEASES / "anatomies.md").is_file()
    for anatomy in packed_maps():
        volumes = anatomy.tissues.volumes_ml()
        assert 800 < sum(volumes.values()) < 1500, anatomy.name
        assert all(ml > 0 for name, ml in volumes.items() if name != "csf"), anatomy.name
        assert int(anatomy.tissues.labels.max()) == NUMBER["third and fourth ventricle"]


def test_a_released_map_is_made_again_from_the_mirror(mirror):
    again, released = packed_map(label_map_paths("train")[4]), packed_maps()[4]
    assert again.midplane == released.midplane and again.tissues.grid == released.tissues.grid
    assert (again.tissues.labels == released.tissues.labels).all()


@pytest.mark.slow
def test_the_release_is_made_again_byte_for_byte(mirror, tmp_path):
    again = pack(label_map_paths("train"), tmp_path / "again.npz.xz")
    assert again.read_bytes() == release_path("anatomies").read_bytes()
