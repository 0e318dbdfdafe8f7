from dataclasses import replace

import numpy as np
import pytest
import torch

from medil.config import PRESETS, ModelConfig, preset
from medil.errors import InputError
from medil.model.autoencoder import MedIL
from medil.model.weights import (
    load_model,
    load_release,
    save_weights,
    start_from,
    weights_id,
    weights_sha256,
)
from medil.training import update as training
from medil.training.launch import launch
from medil.training.state import load_state, save_state
from tests.run_training import block_scans, config_of

pytest.importorskip("lightning_fabric", reason="needs the extra `train`")

TEST = PRESETS["test"]


@pytest.fixture
def scans():
    return block_scans()[:1]


def a_few_steps(scans, count, state=None, keep=None):
    """Some steps of a run, from its start or from a saved state; gives the weights."""
    torch.manual_seed(0)
    model, ema = MedIL(TEST.model), MedIL(TEST.model)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    fabric = launch(1, "cpu")
    wrapped, _ = fabric.setup(model, optimiser)
    first = load_state(state, model, ema, optimiser)["step"] if state else 0
    for number in range(first, first + count):
        rng = np.random.default_rng([0, number])
        step = training.draw_step(TEST, scans, 0.5, rng)
        training.update(wrapped, optimiser, step, TEST.train, int(rng.integers(2**31)), fabric)
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


def one_update(scans, **settings):
    """The weights after one update, and what it reports."""
    torch.manual_seed(0)
    config = config_of(**settings)
    model = MedIL(config.model)
    optimiser = training.new_optimiser(model, config.train)
    step = training.draw_step(config, scans, 0.5, np.random.default_rng(3))
    fabric = launch(1, "cpu")
    wrapped, _ = fabric.setup(model, optimiser)
    record = training.update(wrapped, optimiser, step, config.train, 1, fabric)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), record


@pytest.mark.parametrize("more", [{}, {"loss": "l1"}])
def test_accumulated_parts_take_the_step_of_the_whole_batch(scans, more):
    whole, record = one_update(scans, batch=4, **more)
    parts, record_of_parts = one_update(scans, batch=4, accumulate=4, **more)
    start = torch.cat([p.flatten() for p in seeded_model().parameters()])
    assert (whole - start).abs().max() > 1e-5  # it did learn
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)
    assert record_of_parts == pytest.approx(record, rel=1e-3, abs=1e-4)


def seeded_model():
    torch.manual_seed(0)
    return MedIL(TEST.model)


def test_an_update_reports_the_batch_before_it_learns(scans):
    _, record = one_update(scans, batch=2)
    step = training.draw_step(config_of(batch=2), scans, 0.5, np.random.default_rng(3))
    model = seeded_model()
    noise = training.draw_noise(model.config, step, 1)
    with torch.no_grad():
        estimate, _, _ = model(step.x, step.grid, step.latent_grid, step.target_grid, noise)
    mse = (estimate - step.target).square().mean().item()
    assert record["psnr_db"] == pytest.approx(-10 * np.log10(mse), abs=1e-3)
    assert set(record) == {"loss", "gradient_norm", "psnr_db", "gain_db"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_leaves_the_weights_alone(scans, value):
    model = seeded_model()
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    optimiser = training.new_optimiser(model, TEST.train)
    fabric = launch(1, "cpu")
    wrapped, _ = fabric.setup(model, optimiser)
    step = training.draw_step(TEST, scans, 0.5, np.random.default_rng(3))
    broken = replace(step, target=step.target.clone().index_fill_(2, torch.tensor([0]), value))
    with pytest.raises(InputError, match="on cubes"):
        training.update(wrapped, optimiser, broken, TEST.train, 1, fabric)
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, before[name]), name
    assert not optimiser.state_dict()["state"]


def test_a_step_of_any_network_is_refused_where_its_loss_is_not_finite():
    model = torch.nn.Linear(1, 1)
    before = model.weight.detach().clone()
    optimiser = training.new_optimiser(model, TEST.train)
    fabric = launch(1, "cpu")
    wrapped, _ = fabric.setup(model, optimiser)

    def part_loss(index: int, count: int) -> torch.Tensor:
        assert (index, count) == (0, 1)
        return wrapped(torch.full((1, 1), float("inf"))).mean()

    with pytest.raises(InputError, match=r"its gradient \w+; lower learning_rate\.$"):
        training.take_step(wrapped, optimiser, TEST.train, fabric, part_loss)
    assert torch.equal(model.weight, before)


def test_both_stages_are_seen(scans):
    first = training.draw_step(TEST, scans, 0.0, np.random.default_rng(0))
    later = training.draw_step(TEST, scans, 0.9, np.random.default_rng(0))
    assert first.grid.extent_mm == pytest.approx((32, 32, 32))  # whole volume, larger voxels
    assert max(first.grid.spacing_mm) > 1.0
    assert later.grid.spacing_mm == pytest.approx((1, 1, 1))  # native patch
    assert max(later.grid.extent_mm) <= max(TEST.train.patch_sides_mm)


def test_the_learning_rate_warms_up_and_fades_out():
    settings = TEST.train
    rates = [training.learning_rate(settings, s / 1000, s) for s in range(1001)]
    assert rates[0] == pytest.approx(settings.learning_rate / settings.warmup_steps)
    assert max(rates) <= settings.learning_rate
    assert rates[-1] == pytest.approx(0, abs=1e-12)


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
    assert load_release("tiny").config == preset("tiny").model
    with pytest.raises(InputError, match="not been trained yet"):
        load_release("paper")
    with pytest.raises(InputError, match="no preset"):
        load_release("huge")


def test_the_release_is_small_enough_to_ship():
    from medil.data.releases import RELEASES

    for name in ("tiny", "base"):  # what the wheel may hold, `test_the_wheel_is_small` says
        assert (RELEASES / f"{name}.safetensors").stat().st_size <= 16 * 2**20
        assert (RELEASES / f"{name}.md").read_text().startswith("# Model card")


def test_a_deeper_model_begins_where_the_shallower_one_stopped(scans, tmp_path):
    torch.manual_seed(0)
    shallow = MedIL(TEST.model)
    for weights in shallow.parameters():
        torch.nn.init.normal_(weights, std=0.1)
    path = save_weights(shallow, TEST, tmp_path / "w.safetensors", {"step": 3}, half=False)
    deep = MedIL(replace(TEST.model, depth_encoder=2, depth_fine=3))
    start_from(deep, path)
    rng = np.random.default_rng(0)
    step = training.draw_step(TEST, scans, 0.5, rng)
    for model in (shallow, deep):
        z, _ = model.encode_tensor(step.x, step.grid, step.latent_grid)
        model.seen = model.decode_tensor(z, step.latent_grid, step.target_grid)
    assert torch.allclose(shallow.seen, deep.seen, atol=1e-6)
    with pytest.raises(InputError, match="another model"):
        start_from(MedIL(replace(TEST.model, width_fine=32)), path)


def test_a_shallower_model_leaves_the_last_blocks_out(tmp_path):
    deep = MedIL(replace(TEST.model, depth_encoder=3))
    path = save_weights(deep, TEST, tmp_path / "w.safetensors", {"step": 3}, half=False)
    shallow = MedIL(TEST.model)
    start_from(shallow, path)
    known = deep.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in shallow.state_dict().items())
    with pytest.raises(InputError, match="another model"):
        start_from(MedIL(replace(TEST.model, closed_form=False)), path)


def test_the_latent_grid_starts_at_the_first_corner_of_the_volume(oblique_grid):
    grid = oblique_grid
    cells = MedIL(ModelConfig()).latent_grid(grid)
    corner = [-0.5, -0.5, -0.5]
    assert cells.index_to_ras(corner) == pytest.approx(grid.index_to_ras(corner), abs=1e-9)
    assert all(c >= e - 1e-6 for c, e in zip(cells.extent_mm, grid.extent_mm, strict=True))


@pytest.mark.parametrize("digest", [weights_id, weights_sha256])
def test_digests_of_weights_see_one_changed_weight(digest):
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    before = digest(layer)
    assert before == digest(layer)
    with torch.no_grad():
        layer[0].bias[1] += 1e-6
    assert digest(layer) != before


def test_digests_of_the_release_are_those_on_record():
    release = load_release("tiny")
    assert release.weights_id == weights_id(release) == "2a8dc7fa8ae68730"
    assert weights_sha256(release).startswith("228c136aa46b9bf3")
