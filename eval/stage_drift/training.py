"""Stage one, then stage two in several ways; weights are kept on the way."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from eval.ablation.training import TrainingSet
from eval.arms.catalogue import ARMS, LEARNED
from eval.arms.train import MOST_DECAY, recipe
from eval.rows import digest
from medil.config import RunConfig
from medil.model.rivals import build
from medil.model.weights import save_weights
from medil.training.launch import launch
from medil.training.patches import Scan
from medil.training.update import average, draw_step, new_optimiser, update

FOLDER = Path("_build/stage_drift")
VERSION = 1  # raise it when other weights come out
MODEL = ARMS["integrated" + LEARNED]
PATCH_MM = 24.0
WAYS = {  # name -> side of a patch in mm, patches a step, share of whole volumes in stage two
    "patches": (PATCH_MM, 1, 0.0),
    "patches and whole volumes": (PATCH_MM, 1, 0.25),
    "small patches": (PATCH_MM / 2, 8, 0.0),  # as many voxels a step
}
STAGE_ONE = 1 / 2  # of all steps
SHARES = (STAGE_ONE, 7 / 12, 2 / 3, 5 / 6, 1.0)  # of all steps, after which weights are kept


@dataclass(frozen=True)
class Size:
    """Sizes of a profile."""

    steps: int
    seeds: int
    heads: int  # synthetic ones to train on


SIZES = {"quick": Size(24, 1, 2), "gpu": Size(960, 3, 16), "paper": Size(30000, 5, 16)}


def config_of(way: str, stage: int) -> RunConfig:
    """Settings of a stage; stage one is the same in every way."""
    side_mm, batch, mix = WAYS[way]
    if stage == 1:
        return RunConfig("stage_drift", MODEL, replace(recipe(PATCH_MM), global_share=STAGE_ONE))
    return RunConfig("stage_drift", MODEL, replace(recipe(side_mm, batch), global_mix=mix))


def kept_steps(steps: int) -> tuple[int, ...]:
    """The numbers of steps after which weights are kept.

    Example:
        >>> kept_steps(24)
        (12, 14, 16, 20, 24)
    """
    return tuple(round(share * steps) for share in SHARES)


def snapshots(way: str, seed: int, size: Size) -> dict[int, Path]:
    """Steps to weights of one run, trained if any is missing.

    The learning rate is constant after its warm-up and the weights are averages of about the
    last tenth of the steps, so that weights on the way are as fair as the last ones.
    """
    data = TrainingSet.at_hand(size.heads)
    settings = [asdict(config_of(way, stage)) for stage in (1, 2)]
    about = digest([VERSION, settings, data.recipe, size.steps, seed])[:8]
    stem = f"{way.replace(' ', '_')}_seed{seed}_{about}"
    paths = {n: FOLDER / f"{stem}_{n:05d}.safetensors" for n in kept_steps(size.steps)}
    if not all(path.exists() for path in paths.values()):
        FOLDER.mkdir(parents=True, exist_ok=True)
        train(way, seed, size.steps, data.scans(), paths)
    return paths


def train(way: str, seed: int, steps: int, scans: Sequence[Scan], paths: dict[int, Path]) -> None:
    """Train one way with one seed, and write averaged weights after the steps of `paths`."""
    torch.manual_seed(seed)
    model = build(MODEL)
    ema = copy.deepcopy(model).requires_grad_(False)
    fabric = launch(1, "cpu")
    first = kept_steps(steps)[0]
    optimiser = new_optimiser(model, config_of(way, 1).train)
    wrapped, optimiser = fabric.setup(model, optimiser)
    for number in tqdm(range(steps), desc=f"{way}, seed {seed}", unit="step"):
        config = config_of(way, 1 if number < first else 2)
        warm = min(1.0, (number + 1) / min(config.train.warmup_steps, max(1, steps // 4)))
        for group in optimiser.param_groups:
            group["lr"] = config.train.learning_rate * warm
        rng = np.random.default_rng([seed, number])
        step = draw_step(config, scans, 0.0 if number < first else 1.0, rng)
        update(wrapped, optimiser, step, config.train, int(rng.integers(2**31)), fabric)
        average(ema, model, min(MOST_DECAY, (1 + number) / (10 + number)))
        if path := paths.get(number + 1):
            save_weights(ema, config, path, {"step": number + 1, "seed": seed}, force=True)
