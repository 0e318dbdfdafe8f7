"""LPIPS: the trunk is the published one, and the network is the package's own."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from medil.data import manifest, perceptual
from medil.data.perceptual import PUBLISHED, SHAPES, TRUNK, alexnet_lpips, alexnet_trunk, read_trunk
from medil.errors import InputError

pytestmark = pytest.mark.skipif(find_spec("lpips") is None, reason="lpips is not installed")


@pytest.fixture
def trunk():
    if not manifest.available(TRUNK):
        pytest.skip("MEDIL_DATA_MIRROR names no folder with the trunk of LPIPS")
    return alexnet_trunk()


@pytest.fixture
def published(trunk, tmp_path):
    """A file as torchvision publishes it: the trunk, then layers that LPIPS does not use."""
    state = {name: trunk[name] for name in SHAPES}
    path = tmp_path / "alexnet.pth"
    torch.save(state | {"classifier.1.weight": torch.zeros(3, 3)}, path)
    return path


def test_the_trunk_is_read_from_torch_s_format_without_unpickling(trunk, published, monkeypatch):
    monkeypatch.setattr("pickle.Unpickler", None)
    read = read_trunk(published)
    assert list(read) == list(SHAPES)
    assert all(np.array_equal(read[name], trunk[name].numpy()) for name in SHAPES)


def test_what_is_downloaded_becomes_the_mirror_s_file(trunk, published, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDIL_DATA_MIRROR")
    asked = []

    def download(entry, target):
        asked.append(entry.url)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(published, target)

    monkeypatch.setattr(perceptual, "download", download)
    for _ in range(2):
        assert torch.equal(alexnet_trunk()["features.0.bias"], trunk["features.0.bias"])
    assert asked == [PUBLISHED.url]
    assert [p.name for p in (tmp_path / "cache/lpips").iterdir()] == [Path(TRUNK.path).name]


def test_other_numbers_and_other_files_are_refused(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({name: torch.zeros(shape) for name, shape in SHAPES.items()}, path)
    with pytest.raises(InputError, match="other numbers"):
        read_trunk(path)
    torch.save({"features.0.weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="not torchvision's file"):
        read_trunk(path)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="not torchvision's file"):
        read_trunk(path)


def test_a_download_of_other_numbers_is_not_kept(tmp_path, monkeypatch):
    def other(file, target):
        target.parent.mkdir(parents=True)
        target.write_bytes(b"other bytes")

    monkeypatch.setattr(perceptual, "download", other)
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path))
    monkeypatch.delenv("MEDIL_DATA_MIRROR", raising=False)
    with pytest.raises(InputError, match="not torchvision's file"):
        perceptual.alexnet_trunk()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_distance_grows_with_blur(trunk):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.random((1, 1, 96, 96))).float().expand(-1, 3, -1, -1) * 2 - 1
    blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    more = torch.nn.functional.avg_pool2d(blurred, 3, 1, 1)
    network = alexnet_lpips()
    distances = [network(image, x).item() for x in (image, blurred, more)]
    assert distances[0] == 0 and 0.05 < distances[1] < distances[2]
