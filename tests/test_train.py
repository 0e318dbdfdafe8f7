import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medil import train as training
from medil.autoencoder import MedIL
from medil.checkpoint import (
    load_model,
    load_release,
    load_state,
    save_state,
    save_weights,
    start_from,
)
from medil.config import PRESETS, ModelConfig, RunConfig
from medil.errors import InputError
from medil.sampling import Scan

TEST = PRESETS["test"]


@pytest.fixture
def scans(rng):
    blocks = torch.from_numpy(np.kron(rng.random((8, 8, 8)), np.ones((4, 4, 4)))).float()
    return [Scan(blocks, (1.0, 1.0, 1.0), np.argwhere(blocks.numpy() > 0.02), 1.0)]


def a_few_steps(scans, count, state=None, keep=None):
    """Some steps of a run, from its start or from a saved state; gives the weights."""
    torch.manual_seed(0)
    model, ema = MedIL(TEST.model), MedIL(TEST.model)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    first = load_state(state, model, ema, optimiser)["step"] if state else 0
    for number in range(first, first + count):
        rng = np.random.default_rng([0, number])
        step = training.draw_step(TEST, scans, 0.5, rng)
        training.update(model, optimiser, step, TEST.train, int(rng.integers(2**31)))
        training.average(ema, model, 0.9)
    if keep:
        save_state(keep, model, ema, optimiser, {"step": first + count})
    return model.state_dict() | {f"ema.{k}": v for k, v in ema.state_dict().items()}


def test_a_resumed_run_equals_one_that_never_stopped(scans, tmp_path):
    straight = a_few_steps(scans, 4)
    a_few_steps(scans, 2, keep=tmp_path / "state.safetensors")
    resumed = a_few_steps(scans, 2, state=tmp_path / "state.safetensors")
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), name


def test_a_run_learns_one_volume_and_leaves_a_usable_folder(scans, tmp_path):
    config = replace(TEST, train=replace(TEST.train, minutes=0.1, learning_rate=2e-3, log_every=1))
    training.train(config, scans, tmp_path, seed=0, resume=False)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    gains = [row["gain_db"] for row in log if row["share"] > 0.3]
    assert max(gains) > 0  # better than the closed form it starts from
    assert RunConfig.from_json((tmp_path / "config.json").read_text()) == config
    model = load_model(tmp_path / "weights.safetensors", preset="test")
    assert model.facts["step"] == log[-1]["step"] > 0


def test_both_stages_are_seen(scans):
    first = training.draw_step(TEST, scans, 0.0, np.random.default_rng(0))
    later = training.draw_step(TEST, scans, 0.9, np.random.default_rng(0))
    assert first.grid.extent_mm == pytest.approx((32, 32, 32))  # whole volume, larger voxels
    assert max(first.grid.spacing_mm) > 1.0
    assert later.grid.spacing_mm == pytest.approx((1, 1, 1))  # native patch
    assert max(later.grid.extent_mm) <= max(TEST.train.patch_sides_mm)


def test_a_loss_that_is_not_a_number_stops_the_run_with_a_sentence(scans, tmp_path):
    broken = [Scan(scans[0].data * float("nan"), (1.0, 1.0, 1.0), scans[0].foreground, 1.0)]
    with pytest.raises(InputError, match="nan at step 0"):
        training.train(TEST, broken, tmp_path, seed=0, resume=False)
    assert not (tmp_path / "weights.safetensors").exists()


def test_the_learning_rate_warms_up_and_fades_out():
    settings = TEST.train
    rates = [training.learning_rate(settings, s / 1000, s) for s in range(1001)]
    assert rates[0] == pytest.approx(settings.learning_rate / settings.warmup_steps)
    assert max(rates) <= settings.learning_rate
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_existing_run_and_missing_run_are_refused(tmp_path):
    with pytest.raises(InputError, match="no run to resume"):
        training.main_train("test", tmp_path / "none", resume=True)
    (tmp_path / "state.safetensors").touch()
    with pytest.raises(InputError, match="holds a run"):
        training.main_train("test", tmp_path)
    with pytest.raises(InputError, match="no preset"):
        training.main_train("huge", tmp_path / "x")


def test_weights_come_back_and_their_preset_is_checked(tmp_path):
    torch.manual_seed(0)
    model = MedIL(TEST.model)
    path = save_weights(model, TEST, tmp_path / "w.safetensors", {"step": 3}, half=False)
    back = load_model(path, preset="test")
    for name, value in model.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name
    assert back.facts["step"] == 3 and len(back.weights_id) == 16
    with pytest.raises(InputError, match="preset 'test', not 'tiny'"):
        load_model(path, preset="tiny")


def test_damaged_and_foreign_weights_are_refused(tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x80\x04not weights")
    with pytest.raises(InputError, match="whole safetensors"):
        load_model(bad)
    with pytest.raises(InputError, match="not a file"):
        load_model(tmp_path / "none.safetensors")


def test_releases_are_found_by_name_or_said_to_be_missing():
    assert load_release("tiny").facts["step"] > 0
    with pytest.raises(InputError, match="not been trained yet"):
        load_release("base")
    with pytest.raises(InputError, match="no preset"):
        load_release("huge")


def test_the_release_is_small_enough_to_ship():
    from medil.checkpoint import RELEASES

    assert (RELEASES / "tiny.safetensors").stat().st_size < 4e6
    assert (RELEASES / "tiny.md").read_text().startswith("# Model card")


def test_a_deeper_model_begins_where_the_shallower_one_stopped(scans, tmp_path):
    torch.manual_seed(0)
    shallow = MedIL(TEST.model)
    for weights in shallow.parameters():
        torch.nn.init.normal_(weights, std=0.1)
    path = save_weights(shallow, TEST, tmp_path / "w.safetensors", {"step": 3}, half=False)
    deep = MedIL(replace(TEST.model, depth_encoder=2, depth_fine=3))
    assert start_from(deep, path) == {"step": 3}
    rng = np.random.default_rng(0)
    step = training.draw_step(TEST, scans, 0.5, rng)
    for model in (shallow, deep):
        z, _ = model.encode_tensor(step.x, step.grid, step.latent_grid)
        model.seen = model.decode_tensor(z, step.latent_grid, step.target_grid)
    assert torch.allclose(shallow.seen, deep.seen, atol=1e-6)
    with pytest.raises(InputError, match="another model"):
        start_from(MedIL(replace(TEST.model, width_fine=32)), path)


def test_the_latent_grid_starts_at_the_first_corner_of_the_volume(oblique_grid):
    grid = oblique_grid
    cells = MedIL(ModelConfig()).latent_grid(grid)
    corner = [-0.5, -0.5, -0.5]
    assert cells.index_to_ras(corner) == pytest.approx(grid.index_to_ras(corner), abs=1e-9)
    assert all(c >= e - 1e-6 for c, e in zip(cells.extent_mm, grid.extent_mm, strict=True))
