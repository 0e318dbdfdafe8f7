"""One flow for each arm, trained alike on latents of the arm's autoencoder, and its renderings."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.generation.autoencoders import ANATOMY, FOLDER, RELEASE, RELEASED, autoencoder
from eval.generation.sizes import sizes
from eval.rows import digest
from medil.diffusion.appearance_training import load_appearance_release
from medil.diffusion.config import FlowConfig, FlowRun, FlowTraining
from medil.diffusion.flow import LatentFlow
from medil.diffusion.latents import VERSION, draw_heads, encode_heads
from medil.diffusion.training import FlowLearner, load_flow, load_flow_release
from medil.errors import InputError
from medil.grid import Grid
from medil.model.base import LatentAutoencoder
from medil.training.run import WEIGHTS, train

SEED = 0
MODEL = FlowConfig(  # of the arms: folded, so that a step costs little
    channels=(64, 16), attention=(False, False), head_channels=16,
    coarse=FlowConfig(channels=(40, 48), head_channels=16),
)  # fmt: skip
MOST_VOXELS = 1_000_000  # rendered at a time


def flow_run(profile: str) -> FlowRun:
    """How an arm's flow is trained: the same for all arms.

    Raises:
        InputError: A profile that trains none.
    """
    size = sizes(profile)
    if not size.flow_steps:
        raise InputError(f"the profile {profile} trains no flow; its arm is {RELEASE}.")
    return FlowRun("generation", MODEL, FlowTraining(steps=size.flow_steps), size.training)


def sampler_id(arm: str, profile: str) -> str:
    """Digest of the weights of an arm's flow, with a map or without."""
    sampler = load_appearance_release() if arm == ANATOMY else flow(arm, profile)
    return sampler.weights_id


def flow(arm: str, profile: str) -> LatentFlow:
    """An image-only arm's flow in evaluation mode, trained if its weights are missing.

    A released flow is the same in all profiles. The name of another one's file is a digest of
    all that the weights depend on.

    Raises:
        InputError: A released flow that does not exist yet, no label maps, or a profile
            that trains none.
    """
    if arm in RELEASED:
        return load_flow_release(RELEASED[arm])
    model, config = autoencoder(arm, profile), flow_run(profile)
    settings = [asdict(config.model), asdict(config.train), config.heads]
    name = digest([model.weights_id, *settings, SEED, VERSION])[:8]
    path = FOLDER / "flows" / f"{arm}_{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        heads = draw_heads("train", range(config.heads), FOLDER / "heads")
        latents = encode_heads(model, heads, FOLDER / "latents")
        with tempfile.TemporaryDirectory(dir=path.parent) as run:
            train(FlowLearner(config, latents), Path(run), SEED)
            (Path(run) / WEIGHTS).replace(path)
    return load_flow(path)


@torch.inference_mode()
def render(model: LatentAutoencoder, latent: Tensor, latent_grid: Grid, grid: Grid) -> np.ndarray:
    """Render one latent [C, d, h, w] on a grid, slab by slab: [D, H, W] float32, 0 ... 1 scale.

    A fixed-size autoencoder decodes on a grid of its own, so it renders the whole at once.
    Networks work in bfloat16 where torch allows it, as in training.
    """
    most = MOST_VOXELS if model.config.architecture == "medil" else grid.n_voxels
    thick = max(1, most // (grid.shape[1] * grid.shape[2]))
    slabs = []
    for start in range(0, grid.shape[0], thick):
        shape = (min(thick, grid.shape[0] - start), *grid.shape[1:])
        with torch.autocast("cpu", torch.bfloat16):
            part = model.decode_tensor(latent[None], latent_grid, grid.crop((start, 0, 0), shape))
        slabs.append(part[0, 0].float().numpy())
    return np.concatenate(slabs)
