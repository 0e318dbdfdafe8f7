"""The tissue segmenter: painted heads, the network, training, and maps of scans."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medil.anatomy.classes import CLASSES, NUMBER
from medil.anatomy.config import SEGMENTER_PRESETS, SegmenterConfig, SegmenterRun
from medil.anatomy.network import TissueNet, positions
from medil.anatomy.painted import (
    PaintedHead,
    draw_painted_heads,
    draw_patch,
    read_painted_head,
    vary,
)
from medil.anatomy.segmenter import load_segmenter, load_segmenter_release, segment
from medil.anatomy.training import SegmenterLearner, tissue_loss
from medil.data.releases import release_path
from medil.errors import InputError
from medil.grid import Grid
from medil.regrid import cell_average
from medil.training.run import train
from medil.volume import Volume
from tests.images import LABELS_ORIGIN_MM, toy_labels, write_nifti
from tests.synth.test_attributes import VENTRICLE_MM

SMALL = SEGMENTER_PRESETS["test"]


def striped_head(side: int = 40) -> PaintedHead:
    """A ball in which brightness alone tells CSF, cortex and white matter."""
    axis = torch.arange(side) - (side - 1) / 2
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    labels = torch.zeros(distance.shape, dtype=torch.uint8)
    for name, radius in (("csf", 0.47), ("cortex", 0.4), ("white matter", 0.28)):
        labels[distance < radius * side] = NUMBER[name]
    means = torch.tensor([0.0, 0.2, 0.6, 0.9])
    inside = (255 * torch.sigmoid(0.47 * side - distance)).to(torch.uint8)
    return PaintedHead(means[labels.int()].half(), labels, inside, "striped")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network after some steps on the striped head: its folder and itself."""
    pytest.importorskip("lightning_fabric", reason="needs the extra `train`")
    folder = tmp_path_factory.mktemp("segmenter")
    settings = {"steps": 60, "bf16": False, "learning_rate": 1e-2, "warmup_steps": 3}
    config = replace(SMALL, train=replace(SMALL.train, ema_decay=0.8, log_every=1, **settings))
    return folder, train(SegmenterLearner(config, [striped_head()]), folder)


def test_painted_heads_agree_with_their_map(tmp_path, monkeypatch):
    affine = np.eye(4)
    affine[:3, 3] = LABELS_ORIGIN_MM
    labels = write_nifti(tmp_path / "toy.nii.gz", toy_labels(VENTRICLE_MM, 7.0), affine)
    monkeypatch.setattr("medil.anatomy.painted.label_map_paths", lambda split: [labels])
    (path,) = draw_painted_heads("train", [3], tmp_path / "heads")
    head = read_painted_head(path)
    assert head.source == "toy"
    assert torch.equal(head.data > 0, head.labels > 0)  # air is air in both
    values = head.data.float()
    means = [float(values[head.labels == NUMBER[n]].mean()) for n in ("cortex", "white matter")]
    assert means[0] < 0.9 * means[1]
    before = path.stat().st_mtime_ns
    assert draw_painted_heads("train", [3], tmp_path / "heads") == [path]
    assert path.stat().st_mtime_ns == before  # kept


def test_a_varied_patch_is_air_where_its_map_is(rng):
    head = striped_head()
    shares = []
    for _ in range(12):
        patch = draw_patch(head, 32, rng)
        assert torch.equal(patch.data > 0, patch.labels > 0)
        assert bool(torch.isfinite(patch.data).all())
        _, labels = vary(head.data.float(), head.labels, head.inside / 255, rng)
        shares.append(float((labels == NUMBER["csf"]).sum() / (head.labels == NUMBER["csf"]).sum()))
        assert torch.equal(labels[labels > 1], head.labels[labels > 1])
    assert max(shares) - min(shares) > 0.1  # the outline is cut at different places


def test_a_mirrored_patch_keeps_its_place(rng):
    head = striped_head()
    head.data[30:] *= 0.5  # so that the right side is known
    for _ in range(8):
        patch = draw_patch(head, 32, rng)
        white = torch.nonzero(patch.labels == NUMBER["white matter"]).double()
        if len(white) > 8000:  # the ball as a whole, whose middle is the head's
            middle_mm = white.mean(0) + torch.from_numpy(patch.offset_mm)
            assert middle_mm.abs().max() < 2


def test_positions_are_those_of_the_cells():
    place = positions((4, 6, 8), torch.tensor([10.0, -20.0, 5.0]), torch.eye(3))
    assert place.shape == (3, 2, 3, 4)
    assert (50 * place[:, 1, 2, 3]).tolist() == pytest.approx([12.5, -15.5, 11.5])


def test_the_network_answers_every_voxel_and_patches_agree_with_the_whole():
    torch.manual_seed(0)
    network = TissueNet(SegmenterConfig((8, 8), (1, 1), 8)).eval()
    x = torch.rand(1, 1, 96, 16, 16)
    place = positions((96, 16, 16), torch.zeros(3), torch.eye(3))[None]
    with torch.no_grad():
        whole = network(x, place)
        part = network(x[:, :, 16:80], place[:, :, 8:40])
    assert whole.shape == (1, len(CLASSES), 96, 16, 16)
    assert torch.allclose(part[:, :, 28:36], whole[:, :, 44:52], atol=1e-4)


def test_the_release_is_small_and_of_its_preset():
    network = load_segmenter_release("tiny")
    assert network.config == SEGMENTER_PRESETS["tiny"].model
    assert sum(p.numel() for p in network.parameters()) < 1.5e6
    assert release_path("tiny-segmenter").stat().st_size < 3e6
    with pytest.raises(InputError, match="not been trained yet; there is: tiny-segmenter"):
        load_segmenter_release("test")


def test_the_loss_falls_with_the_truth_and_leaves_air_out():
    labels = striped_head(16).labels[None]
    right = 20 * torch.nn.functional.one_hot(labels.long(), len(CLASSES)).movedim(-1, 1).float()
    assert tissue_loss(right, labels, 0.5) < 1e-3 < tissue_loss(0 * right, labels, 0.5)
    in_air = torch.where(labels[:, None] == 0, 9.0 * torch.rand_like(right), right)
    assert tissue_loss(in_air, labels, 0.5) == tissue_loss(right, labels, 0.5)
    assert tissue_loss(right, 0 * labels, 0.5) == 0


def test_a_run_learns_and_its_weights_load(trained):
    folder, network = trained
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-10:]) < 0.4 * np.mean(losses[:3])
    loaded = load_segmenter(folder / "weights.safetensors")
    assert loaded.facts["step"] == 60 and loaded.facts["heads"] == 1
    for name, value in network.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_resumed_run_ends_as_if_it_had_not_stopped(tmp_path):
    pytest.importorskip("lightning_fabric", reason="needs the extra `train`")
    settings = {"steps": 4, "bf16": False, "save_every": 1}
    config = replace(SMALL, train=replace(SMALL.train, **settings))
    weights = []
    for name, budgets in (("one", [np.inf]), ("two", [0.0, np.inf])):
        (tmp_path / name).mkdir()
        for call, budget_s in enumerate(budgets):
            learner = SegmenterLearner(config, [striped_head()])
            train(learner, tmp_path / name, 1, call > 0, time_budget_s=budget_s)
        weights.append(load_segmenter(tmp_path / name / "weights.safetensors").state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_run_can_start_from_the_weights_of_another_of_its_shape(trained, tmp_path):
    config = replace(SMALL, train=replace(SMALL.train, steps=1, bf16=False))
    weights = trained[0] / "weights.safetensors"
    train(SegmenterLearner(config, [striped_head()]), tmp_path, warm_start_from=weights)
    assert load_segmenter(tmp_path / "weights.safetensors").facts["earlier"]["step"] == 60
    wider = replace(config, model=SegmenterConfig((16, 8), (1, 1), 8))
    with pytest.raises(InputError, match="another network"):
        SegmenterLearner.check_weights(wider, weights)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.8, 0.8, 1.2)])
def test_a_scan_gets_a_map_at_one_mm_over_its_box(trained, spacing_mm):
    network, head = trained[1], striped_head()
    whole = torch.nn.functional.pad(head.data.float(), (5, 3, 4, 4, 2, 6))
    fine = Grid.from_spacing(whole.shape, 1.0, (-20, 3, 7))
    grid = fine.covering(spacing_mm)
    data = torch.from_numpy(cell_average(whole.numpy(), fine, grid)) * 1234
    mapped = segment(Volume(data, grid.rotated((1, 2, 0), 9.0)), network)
    assert mapped.grid.spacing_mm == pytest.approx((1, 1, 1))
    assert mapped.grid.shares_extent(grid.rotated((1, 2, 0), 9.0))
    for name in ("cortex", "white matter"):
        ml = float((head.labels == NUMBER[name]).sum()) / 1000
        assert mapped.volumes_ml()[name] == pytest.approx(ml, rel=0.45), name
    if spacing_mm == (1.0, 1.0, 1.0):
        assert torch.equal(mapped.labels == 0, data == 0)  # air of the scan, and no other
        masked = Volume(torch.where(data == 0, torch.nan, data), mapped.grid)
        assert torch.equal(segment(masked, network).labels, mapped.labels)


def test_what_cannot_be_segmented_is_refused(trained, grid):
    with pytest.raises(InputError, match="skull-stripped"):
        segment(Volume(torch.rand(grid.shape) + 1, grid), trained[1])
    with pytest.raises(InputError, match="constant"):
        segment(Volume(torch.zeros(grid.shape), grid), trained[1])
    with pytest.raises(InputError, match="no finite value"):
        segment(Volume(torch.full(grid.shape, torch.nan), grid), trained[1])
    with pytest.raises(InputError, match="no multiple of"):
        SegmenterRun("tiny", train=replace(SMALL.train, side_vox=36))
