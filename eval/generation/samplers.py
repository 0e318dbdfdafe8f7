"""The flow of each arm, trained if it is not a release, and renderings of its latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.arms.learners import train_once
from eval.generation.arms import ARMS, FOLDER, TINY, autoencoder
from eval.generation.sizes import sizes
from eval.rows import digest
from medil.diffusion.appearance import AppearanceFlow
from medil.diffusion.appearance_training import (
    AppearanceLearner,
    air_latent,
    load_appearance,
    load_appearance_release,
)
from medil.diffusion.config import (
    APPEARANCE_PRESETS,
    CONDITIONS,
    FLOW_PRESETS,
    AppearanceRun,
    FlowRun,
)
from medil.diffusion.flow import LatentFlow
from medil.diffusion.latents import VERSION, draw_heads, encode_heads
from medil.diffusion.sampling import check_pair
from medil.diffusion.training import FlowLearner, load_flow, load_flow_release
from medil.errors import InputError
from medil.grid import Grid
from medil.model.base import LatentAutoencoder
from medil.system.device import network_precision

MOST_VOXELS = 1_000_000  # rendered at a time
Sampler = LatentFlow | AppearanceFlow


def run_of(arm: str, profile: str) -> FlowRun | AppearanceRun:
    """How an arm's flow is trained: the release's network, on synthetic heads alone.

    Raises:
        InputError: A profile that trains none.
    """
    size = sizes(profile)
    steps = size.anatomy_steps if ARMS[arm].has_map else size.image_steps
    if not steps:
        raise InputError(f"the profile {profile} trains no flow; its arms are {size.arms}.")
    run: Any = (APPEARANCE_PRESETS if ARMS[arm].has_map else FLOW_PRESETS)[TINY]
    if ARMS[arm].has_map:
        model = replace(run.model, covariates=("contrast",))
    else:
        coarse = replace(run.model.coarse, conditions=CONDITIONS)
        model = replace(run.model, conditions=CONDITIONS, coarse=coarse)
    settings = replace(run.train, steps=steps)
    return replace(run, model=model, train=settings, heads=size.training, real_share=0.0)


@lru_cache(maxsize=2)
def sampler(arm: str, profile: str, seed: int) -> Sampler:
    """An arm's flow of a seed in evaluation mode, trained if its weights are missing.

    A released flow is the same in all profiles and has one seed. The name of another one's file
    is a digest of all that the weights depend on.

    Raises:
        InputError: A released flow that is not here, no label maps, or a profile that trains
            none.
    """
    own = ARMS[arm]
    if own.released:
        released = load_appearance_release if own.has_map else load_flow_release
        return released(own.autoencoder)
    model, config = autoencoder(arm, profile), run_of(arm, profile)
    settings = [asdict(config.model), asdict(config.train), config.heads]
    name = digest([model.weights_id, *settings, seed, VERSION])[:8]
    path = FOLDER / "flows" / f"{arm}_seed{seed}_{name}.safetensors"
    train_once(path, partial(_learner, model, config), seed)
    return load_appearance(path) if own.has_map else load_flow(path)


def _learner(
    model: LatentAutoencoder, config: FlowRun | AppearanceRun
) -> FlowLearner | AppearanceLearner:
    heads = draw_heads("train", range(config.heads), FOLDER / "heads")
    latents = encode_heads(
        model, heads, FOLDER / "latents", with_maps=isinstance(config, AppearanceRun)
    )
    if isinstance(config, AppearanceRun):
        return AppearanceLearner(config, latents, air_latent(model))
    return FlowLearner(config, latents)


def pair(arm: str, profile: str, seed: int) -> tuple[LatentAutoencoder, Sampler]:
    """An arm's autoencoder, and its flow of a seed.

    Raises:
        InputError: Weights that are not there or do not belong together.
    """
    model, flow = autoencoder(arm, profile), sampler(arm, profile, seed)
    check_pair(flow, model)
    return model, flow


def training_cost(flow: Sampler) -> dict[str, float]:
    """Steps, and minutes of one thread: CPU time, or for the older of the releases wall time."""
    seconds = flow.facts.get("cpu_s", flow.facts.get("elapsed_s", np.nan))
    return {"training_steps": float(flow.facts.get("step", np.nan)), "training_min": seconds / 60}


def as_synthetic(flow: Sampler, request: Mapping[str, float]) -> dict[str, float]:
    """What a flow can be told of a request; that the head is synthetic, if it knows real ones."""
    known = flow.known.spreads
    return {name: value for name, value in {**request, "real": 0.0}.items() if name in known}


@torch.inference_mode()
def render(model: LatentAutoencoder, latent: Tensor, latent_grid: Grid, grid: Grid) -> np.ndarray:
    """Render one latent [C, d, h, w] on a grid, slab by slab: [D, H, W] float32, 0 ... 1 scale.

    A fixed-size autoencoder decodes on a grid of its own, so it renders the whole at once.
    Networks work in bfloat16 where the machine has it, as in training.
    """
    most = MOST_VOXELS if model.config.architecture == "medil" else grid.n_voxels
    thick = max(1, most // (grid.shape[1] * grid.shape[2]))
    slabs = []
    for start in range(0, grid.shape[0], thick):
        shape = (min(thick, grid.shape[0] - start), *grid.shape[1:])
        with network_precision(torch.device("cpu")):
            part = model.decode_tensor(latent[None], latent_grid, grid.crop((start, 0, 0), shape))
        slabs.append(part[0, 0].float().numpy())
    return np.concatenate(slabs)
