"""Training an appearance flow: what a step draws, that it learns, and what its weights hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medil.diffusion.appearance import sample_appearance
from medil.diffusion.appearance_training import (
    AppearanceLearner,
    draw_batch,
    holds_tissue,
    load_appearance,
    patch_start,
    seen,
    statistics,
)
from medil.diffusion.config import APPEARANCE_PRESETS, AppearanceRun
from medil.diffusion.latents import LatentSet
from medil.errors import InputError
from medil.grid import Grid
from medil.synth.attributes import ATTRIBUTES, COVARIATES
from medil.training.launch import launch
from medil.training.run import train

pytest.importorskip("lightning_fabric", reason="needs the extra `train`")

BOX = Grid.from_spacing((10, 12, 10), 4.0)
AIR = torch.tensor([-5.0, 0.0])
OPTIONS = {"bf16": False, "log_every": 1, "patch": 6, "batch": 2}


def config_of(**settings) -> AppearanceRun:
    """The test preset in float32 with some fields of `AppearanceTraining` changed."""
    test = APPEARANCE_PRESETS["test"]
    return replace(test, train=replace(test.train, **{**OPTIONS, **settings}), real_share=0.75)


def latent_set(count: int = 4, real: int = 2) -> LatentSet:
    """Latents that follow their maps: white matter is bright, cortex dark, the rest air."""
    draw = torch.Generator().manual_seed(0)
    latents, labels = [], []
    for k in range(count):
        own = torch.zeros(40, 48, 40, dtype=torch.uint8)
        own[8:32, 8 : 36 + k, 8:32] = 2
        own[14:26, 14:30, 14:26] = 3
        middle = own[2::4, 2::4, 2::4]
        level = torch.tensor([-5.0, -1.0, 0.0, 1.0])[torch.tensor([0, 1, 1, 3])][middle.int()]
        both = torch.stack([level, 2 * level])
        both[:, middle == 0] = AIR[:, None]
        latents.append(both + 0.1 * torch.randn(both.shape, generator=draw))
        labels.append(own)
    known = torch.tensor([[20.0, 1000.0 + k, 1.4, 1.0] for k in range(count)])
    ages = (None,) * (count - real) + tuple(30.0 + k for k in range(real))
    return LatentSet(torch.stack(latents), BOX, known, "0123", tuple(labels), ages, real)


def learner(**settings) -> AppearanceLearner:
    return AppearanceLearner(config_of(**settings), latent_set(), AIR)


def test_statistics_count_cells_with_tissue_alone():
    latents, config = latent_set(), config_of()
    known = statistics(latents, config, AIR)
    cells = holds_tissue(latents.labels[0], 4)
    assert cells.shape == (10, 12, 10) and int(cells.sum()) == 6 * 7 * 6
    assert known.mean[0] > -1.0 and known.std[0] < 2.0  # air, at -5, does not count
    assert known.pitch_mm == 4.0 and known.autoencoder_id == "0123"
    assert (known.spreads["age"].low, known.spreads["age"].high) == (30.0, 31.0)
    assert known.spreads["real"].mean == 0.5 and known.spreads["contrast"].std < 1e-6
    with pytest.raises(InputError, match="covariate 'age'"):
        statistics(replace(latents, ages=(None,) * 4), config, AIR)


def test_covariates_say_who_is_real_and_leave_unknown_ages_out():
    latents = latent_set()
    first, last = latents.known_of(0), latents.known_of(3)
    assert first.keys() == {*ATTRIBUTES, "real"} and last.keys() == COVARIATES.keys()
    assert (first["real"], last["real"], last["age"]) == (0.0, 1.0, 31.0)
    assert first["contrast"] == pytest.approx(1.4)
    spreads = learner().known.spreads
    rng = np.random.default_rng(0)
    assert seen(last, spreads, 0.0, rng).keys() == spreads.keys()
    kept = [len(seen(last, spreads, 0.3, rng)) for _ in range(600)]
    assert np.mean(kept) == pytest.approx(0.7 * 3, abs=0.1)


def test_real_scans_have_their_share_of_draws():
    rng = np.random.default_rng(0)
    latents = latent_set(6, real=1)
    drawn = [latents.draw(0.75, rng) for _ in range(800)]
    assert np.mean(np.array(drawn) == 5) == pytest.approx(0.75, abs=0.05)
    assert set(drawn) == set(range(6))
    plain = [replace(latents, real=0).draw(0.75, rng) for _ in range(200)]
    assert set(plain) == set(range(6))


def test_patches_lie_in_the_box_around_tissue():
    labels, settings, rng = latent_set().labels[0], config_of().train, np.random.default_rng(0)
    for _ in range(40):
        start = patch_start(labels, settings, 4, rng)
        assert all(0 <= a <= n - settings.patch for a, n in zip(start, BOX.shape, strict=True))
        box = tuple(slice(4 * a, 4 * (a + settings.patch)) for a in start)
        assert bool((labels[box] > 0).any())


def test_a_batch_holds_latents_and_the_map_of_the_same_place():
    made = learner()
    flow, latents = made.build(), made.latents
    x, noise, times, maps, told = draw_batch(flow, latents, made.config, np.random.default_rng(1))
    assert x.shape == noise.shape == (2, 2, 6, 6, 6) and maps.shape == (2, 24, 24, 24)
    assert times.shape == (2,) and told.shape == (2, 6)
    means = flow.denormalise(x)
    middle = maps[:, 2::4, 2::4, 2::4]
    assert means[:, 0][middle == 3].mean().item() == pytest.approx(1.0, abs=0.05)
    assert means[:, 0][middle == 2].mean().item() == pytest.approx(-1.0, abs=0.05)


def test_a_run_learns_resumes_and_its_weights_sample_what_the_map_says(tmp_path):
    settings = {"steps": 60, "learning_rate": 1e-2, "warmup_steps": 3, "ema_decay": 0.9}
    (tmp_path / "run").mkdir()
    train(learner(**settings), tmp_path / "run", time_budget_s=0)
    train(learner(**settings), tmp_path / "run", resume=True)
    flow = load_appearance(tmp_path / "run" / "weights.safetensors")
    assert flow.facts["step"] == 60 and flow.facts["heads"] == {"synthetic": 2, "real": 2}
    assert flow.known.autoencoder_id == "0123" and flow.known.spreads.keys() == {
        "contrast", "age", "real"
    }  # fmt: skip
    torch.testing.assert_close(flow.air, AIR)
    labels = latent_set().labels[0]
    latent = sample_appearance(flow, labels, 0, {"real": 1.0}, steps=6)
    middle = labels[2::4, 2::4, 2::4]
    assert latent[0][middle == 3].mean() > latent[0][middle == 2].mean() + 1.0
    other = AppearanceLearner(config_of(**settings), replace(latent_set(), weights_id="9"), AIR)
    with pytest.raises(InputError, match="another autoencoder"):
        other.warm_start(_run_of(other, tmp_path), tmp_path / "run" / "weights.safetensors")


def _run_of(learner, folder):
    from medil.training.run import Run

    return Run(learner, folder, 0, launch(1, "cpu"))
