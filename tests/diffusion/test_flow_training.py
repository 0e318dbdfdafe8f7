"""Training a flow: it learns, resumes to the bit, refuses, and its weights say what they are."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medil.config import PRESETS
from medil.diffusion import training as flow_train
from medil.diffusion.config import CONDITIONS, FLOW_PRESETS, KNOWN_CONDITIONS, FlowRun
from medil.diffusion.flow import block_means, coarser_grid
from medil.diffusion.training import (
    FlowLearner,
    draw_levels,
    load_flow,
    load_flow_release,
    save_flow,
)
from medil.errors import InputError
from medil.model.weights import save_weights, short_digest, weights_sha256
from medil.training.launch import launch
from medil.training.run import train
from tests.diffusion.test_flow import BOX, CASCADE, CONFIG, UNFOLDED, latent_set, stirred, tiny_flow

pytest.importorskip("lightning_fabric", reason="needs the extra `train`")
from safetensors.torch import load_file

WIDER = replace(CONFIG, channels=(32, 32))
LATENTS = latent_set(weights_id="0123456789abcdef")


def config_of(**settings) -> FlowRun:
    """The test preset in float32 with some fields of `FlowTraining` changed."""
    settings = {"bf16": False, "log_every": 1, "save_every": 2, **settings}
    test = FLOW_PRESETS["test"]
    return replace(test, train=replace(test.train, **settings))


def cascade(**settings) -> FlowRun:
    """The same with a flow of block means under it."""
    return replace(config_of(coarse_draws=2, **settings), model=CASCADE)


def run(out, resume=False, seed=0, time_budget_s=float("inf"), **settings):
    """Train on made-up latents into a folder, made if missing."""
    out.mkdir(exist_ok=True)
    config = config_of(**settings)
    return train(FlowLearner(config, LATENTS), out, seed, resume, time_budget_s=time_budget_s)


def state(folder):
    return load_file(folder / "state.safetensors")


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same_state(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


# A run


def test_a_run_learns_and_leaves_a_folder_that_loads(tmp_path):
    easy = latent_set(2, channels=1)  # two points to tell apart
    settings = {"steps": 80, "batch": 2, "learning_rate": 4e-3, "warmup_steps": 3}
    config = config_of(ema_decay=0.8, dropped_share=0.0, hidden_share=0.0, **settings)
    train(FlowLearner(config, easy), tmp_path)
    rows = log(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 81))
    assert all(np.isfinite(row["gradient_norm"]) for row in rows)
    flow = load_flow(tmp_path / "weights.safetensors")
    x = flow.normalise(easy.latents)
    conditions = flow.embed_conditions(
        [dict(zip(CONDITIONS, row, strict=True)) for row in easy.known.tolist()]
    )
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before, after = (
            float(f.loss(x, noise, torch.tensor([800, 800]), conditions).mean())
            for f in (tiny_flow(easy), flow)
        )
    assert after < 0.7 * before
    assert flow.facts["step"] == 80 and flow.facts["heads"]["synthetic"] == 2 and not flow.training
    saved = FlowRun.from_json((tmp_path / "config.json").read_text())
    assert saved == config and flow.facts["config_hash"] == config.digest()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(tmp_path / name, steps=2, seed=seed)
    assert same_state(state(tmp_path / "a"), state(tmp_path / "b"))
    assert not same_state(state(tmp_path / "a"), state(tmp_path / "c"))


@pytest.mark.parametrize("make", [config_of, cascade])
def test_short_time_budgets_add_up_to_the_same_run(tmp_path, capsys, make):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    config = make(steps=3, batch=2)
    train(FlowLearner(config, LATENTS), whole)
    for call in range(3):
        train(FlowLearner(config, LATENTS), parts, resume=call > 0, time_budget_s=0)
        assert [row["step"] for row in log(parts)] == list(range(1, call + 2))
    assert same_state(state(whole), state(parts))
    assert f"medil train-ldm --resume -o {parts}" in capsys.readouterr().out


@pytest.mark.parametrize("make", [config_of, cascade])
def test_parts_of_a_batch_take_the_step_of_the_whole(make):
    weights = []
    for accumulate in (1, 2):
        learner = FlowLearner(make(batch=4, accumulate=accumulate), LATENTS)
        torch.manual_seed(0)
        flow = stirred(learner.build())
        fabric = launch(1)
        model, optimiser = fabric.setup(flow, torch.optim.SGD(flow.parameters(), 0.01))
        learner.step(model, optimiser, 0, 0.0, 5, fabric)
        weights.append(torch.cat([p.detach().flatten() for p in flow.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=1e-4)


def test_a_step_draws_what_each_level_learns_from():
    config = cascade(batch=3, dropped_share=0.0, hidden_share=0.0, given_noise=0.0)
    flow = tiny_flow(LATENTS, CASCADE)
    fine, coarse = draw_levels(flow, LATENTS, config, np.random.default_rng(1))
    inner, under = flow.normalise(LATENTS.latents), block_means(LATENTS.latents, 2)
    for k in range(3):
        (which,) = (inner - fine[0][k]).abs().amax((1, 2, 3, 4)).lt(1e-5).nonzero()
        torch.testing.assert_close(fine[4][k], flow.coarse.centred(under)[which[0]])
        said = dict(zip(CONDITIONS, LATENTS.known[which[0]].tolist(), strict=True))
        torch.testing.assert_close(fine[3][k], flow.embed_conditions([said])[0])
    assert len(coarse) == 4 and len(coarse[0]) == 6  # nothing is given; 3 x 2 draws
    known = flow.coarse.normalise(under)
    gaps = (known[None] - coarse[0][:, None]).abs().amax((2, 3, 4, 5)).min(1).values
    assert float(gaps.max()) < 1e-5


def test_a_flow_of_heads_and_scans_is_told_which_is_real():
    latents = replace(LATENTS, real=2, ages=(None,) * 4 + (31.0, 44.0))
    model = replace(CONFIG, conditions=KNOWN_CONDITIONS)
    config = config_of(batch=200, dropped_share=0.0, hidden_share=0.0)
    config = replace(config, model=model, real_share=0.75)
    flow = FlowLearner(config, latents).build()
    assert flow.known.spreads["real"].mean == pytest.approx(1 / 3)
    ((x, _, _, conditions),) = draw_levels(flow, latents, config, np.random.default_rng(0))
    column = KNOWN_CONDITIONS.index("real")
    is_real = conditions[:, column] > 0
    assert float(is_real.float().mean()) == pytest.approx(0.75, abs=0.1)
    scans = flow.normalise(latents.latents[4:])
    gaps = (x[:, None] - scans[None]).abs().amax((2, 3, 4, 5)).amin(1)
    assert torch.equal(gaps < 1e-5, is_real)
    assert FlowLearner(config, latents).facts["heads"] == {"synthetic": 4, "real": 2}


def test_a_set_holds_real_scans_where_the_recipe_has_a_share_of_them(monkeypatch, tmp_path):
    monkeypatch.setattr(flow_train, "draw_heads", lambda *a, **k: [])
    monkeypatch.setattr(flow_train, "encode_heads", lambda *a: LATENTS)
    monkeypatch.setattr(flow_train, "encode_scans", lambda *a: replace(LATENTS, real=6))
    monkeypatch.setattr(flow_train, "load_segmenter_release", lambda: None)
    model = torch.nn.Linear(1, 1)
    for share, real in ((0.0, 0), (0.5, 6)):
        config = replace(config_of(), real_share=share)
        encoded = flow_train.encoded_set(model, config, tmp_path, None, launch(1), 1)
        assert encoded.counts == {"synthetic": 6, "real": real}


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_weights(tmp_path, monkeypatch):
    counts, drawn = [], flow_train.draw_levels

    def spoilt(*arguments):
        levels = drawn(*arguments)
        counts.append(1)
        if len(counts) == 4:
            levels[0][1] = levels[0][1] * float("nan")
        return levels

    monkeypatch.setattr(flow_train, "draw_levels", spoilt)
    with pytest.raises(InputError, match=r"step 3 failed: the loss is nan .* learning_rate"):
        run(tmp_path, steps=6)
    assert not (tmp_path / "weights.safetensors").exists()
    assert all(v.isfinite().all() for v in state(tmp_path).values())
    monkeypatch.undo()
    run(tmp_path, steps=6, resume=True)
    assert log(tmp_path)[-1]["step"] == 6


def test_the_step_that_fails_changes_no_weight():
    learner = FlowLearner(config_of(), replace(LATENTS, latents=LATENTS.latents.clone()))
    flow = stirred(learner.build())
    learner.latents.latents.fill_(float("nan"))
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    fabric = launch(1)
    model, optimiser = fabric.setup(flow, torch.optim.SGD(flow.parameters(), 0.1))
    with pytest.raises(InputError, match="the loss is nan"):
        learner.step(model, optimiser, 0, 0.0, 0, fabric)
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())


# Weights in and out


def test_weights_come_back_with_grid_ranges_and_whose_latents_they_sample(tmp_path):
    flow = stirred(tiny_flow(LATENTS))
    path = save_flow(flow, FLOW_PRESETS["test"], tmp_path / "w.safetensors", {"step": 7})
    again = load_flow(path)
    assert again.known.grid == BOX and again.known.spreads == flow.known.spreads
    assert again.known.autoencoder_id == "0123456789abcdef" and again.facts["step"] == 7
    assert again.config == FLOW_PRESETS["test"].model
    for name, value in flow.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value.half().float())
    assert again.weights_id == load_flow(path).weights_id and len(again.weights_id) == 16
    with torch.no_grad():
        flow.unet.out[2].conv.bias += 1
    other = load_flow(save_flow(flow, FLOW_PRESETS["test"], tmp_path / "w.safetensors", {}))
    assert other.weights_id != again.weights_id


def test_weights_of_a_cascade_come_back_with_both_levels(tmp_path):
    flow, config = stirred(tiny_flow(LATENTS, CASCADE)), cascade()
    again = load_flow(save_flow(flow, config, tmp_path / "w.safetensors", {}))
    assert again.coarse.known.grid == coarser_grid(BOX, 2) and again.config == CASCADE
    for name, value in flow.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value.half().float())
    torch.testing.assert_close(again.coarse.known.mean, again.coarse.mean)


def test_other_files_are_refused(tmp_path, spline_model):
    weights = save_weights(spline_model, PRESETS["test"], tmp_path / "a.safetensors", {})
    with pytest.raises(InputError, match="does not hold what is needed here"):
        load_flow(weights)
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_flow(tmp_path / "text.safetensors")
    with pytest.raises(InputError, match="is not a file"):
        load_flow(tmp_path / "gone.safetensors")
    small = save_flow(
        tiny_flow(LATENTS),
        replace(FLOW_PRESETS["test"], model=WIDER),
        tmp_path / "b.safetensors",
        {},
    )
    with pytest.raises(InputError, match="does not fit"):
        load_flow(small)
    lacking = save_flow(tiny_flow(LATENTS), cascade(), tmp_path / "c.safetensors", {})
    with pytest.raises(InputError, match=r"lack coarse\.mean"):
        load_flow(lacking)


def test_releases_are_named_by_their_preset(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no preset 'huge'; choose one of test, tiny, base"):
        load_flow_release("huge")
    with pytest.raises(InputError, match="'test-ldm' has not been trained yet"):
        load_flow_release("test")
    save_flow(tiny_flow(LATENTS), FLOW_PRESETS["test"], tmp_path / "test-ldm.safetensors", {})
    monkeypatch.setattr(flow_train, "release_path", lambda name: tmp_path / f"{name}.safetensors")
    assert load_flow_release("test").known.grid == BOX


# The verb


@pytest.fixture
def train_verb(run_medil, monkeypatch, tmp_path, spline_model):
    """`medil train-ldm` into a folder, on latents that are made here."""
    pytest.importorskip("click", reason="needs the extra `cli`")
    monkeypatch.setattr(flow_train, "load_release", lambda name: spline_model)
    monkeypatch.setattr(
        flow_train, "draw_heads", lambda split, numbers, folder, processes: list(numbers)
    )
    monkeypatch.setattr(
        flow_train, "encode_heads",
        lambda model, heads, folder, with_maps: replace(
            LATENTS, latents=LATENTS.latents[heads], known=LATENTS.known[heads]
        ),
    )  # fmt: skip
    return lambda *more: run_medil("train-ldm", "-o", tmp_path / "run", *more)


def test_the_verb_trains_refuses_and_resumes(train_verb, tmp_path):
    options = "--preset", "test", "--steps", 2, "--heads", 5, "--time-budget", "0.001s"
    code, out, err = train_verb(*options)
    assert code == 0 and "--resume" in out, err
    for options, words in (
        (["--preset", "test"], "holds a run already"),
        (["--resume", "--preset", "tiny"], "has preset test, not tiny"),
        (["--resume", "--steps", 1], "has train.steps 2, not 1"),
        (["--resume", "--heads", 6], "has heads 5, not 6"),
        (["--resume", "--seed", 1], "has seed 0, not 1"),
        (["--resume", "--minutes", 1, "--steps", 2], "name only one"),
        (["--resume", "--time-budget", "soon"], "no time budget"),
    ):
        code, _, err = train_verb(*options)
        assert code == 2 and words in err and err.count("\n") == 1, err
    assert train_verb("--resume")[0] == 0
    flow = load_flow(tmp_path / "run" / "weights.safetensors")
    assert flow.facts["step"] == 2 and len(flow.facts["calls"]) == 2
    assert flow.facts["heads"] == {"synthetic": 5, "real": 0}


def test_a_run_begins_from_the_networks_that_fit(tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    train(FlowLearner(cascade(steps=3), LATENTS), first, seed=5)
    weights, config = first / "weights.safetensors", cascade(steps=1, learning_rate=1e-12)
    earlier = load_flow(weights)
    for name, model in (("same", config.model), ("other", UNFOLDED)):
        out = tmp_path / name
        out.mkdir()
        flow = train(
            FlowLearner(replace(config, model=model), LATENTS), out, warm_start_from=weights
        )
        for own, before in zip(flow.coarse.parameters(), earlier.coarse.parameters(), strict=True):
            torch.testing.assert_close(own, before, atol=1e-6, rtol=0)
        about = load_flow(out / "weights.safetensors").facts["earlier"]
        assert about["step"] == 3 and about["weights"] == short_digest(weights_sha256(earlier))
        assert about["whole"] is (name == "same")
    out = tmp_path / "none"
    out.mkdir()
    with pytest.raises(InputError, match="no network of"):
        train(FlowLearner(config_of(steps=1), LATENTS), out, warm_start_from=weights)
    fewer = replace(LATENTS, latents=LATENTS.latents[:, :4])
    with pytest.raises(InputError, match="another shape"):
        train(FlowLearner(config, fewer), out, warm_start_from=weights)


def test_a_flow_goes_on_with_the_latents_of_a_later_autoencoder(tmp_path):
    paths = [tmp_path / name for name in ("first", "second")]
    for path in paths:
        path.mkdir()
    weights = paths[0] / "weights.safetensors"
    train(FlowLearner(config_of(steps=3), LATENTS), paths[0], seed=5)
    later = replace(LATENTS, latents=2 * LATENTS.latents + 1, weights_id="later")
    learner = FlowLearner(config_of(steps=1, learning_rate=1e-12), later)
    flow, earlier = train(learner, paths[1], warm_start_from=weights), load_flow(weights)
    for own, before in zip(flow.parameters(), earlier.parameters(), strict=True):
        torch.testing.assert_close(own, before, atol=1e-6, rtol=0)
    torch.testing.assert_close(flow.known.mean, later.latents.mean(0))
    assert flow.known.autoencoder_id == "later"
    assert load_flow(paths[1] / "weights.safetensors").facts["earlier"]["same_latents"] is False


def test_a_finished_run_may_be_given_more_steps(train_verb, tmp_path):
    assert train_verb("--preset", "test", "--steps", 2, "--heads", 5)[0] == 0
    assert train_verb("--resume", "--steps", 3)[0] == 0
    flow = load_flow(tmp_path / "run" / "weights.safetensors")
    assert flow.settings.train.steps == flow.facts["step"] == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preset", "huge"], "no preset 'huge'"),
        (["--minutes", 0], "above zero"),
        (["--resume"], "no run to resume"),
        (["--heads", 0], "--heads"),
    ],
)
def test_bad_options_are_refused_and_leave_nothing(train_verb, tmp_path, options, words):
    code, out, err = train_verb(*options)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()
