"""Train a latent diffusion model on synthetic heads that are drawn and encoded once."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from medil.anatomy.segmenter import load_segmenter_release
from medil.checksums import parsed
from medil.data.releases import release_path
from medil.diffusion.config import (
    FLOW_PRESETS,
    AppearanceRun,
    FlowConfig,
    FlowRun,
    flow_preset,
)
from medil.diffusion.flow import (
    LatentFlow,
    LatentStatistics,
    block_means,
    coarser_grid,
    draw_times,
    hide,
    latent_statistics,
)
from medil.diffusion.latents import LatentSet, draw_heads, encode_heads
from medil.diffusion.scans import encode_scans
from medil.errors import InputError
from medil.formats import FLOW
from medil.grid import Grid
from medil.latent import grid_from_json, grid_to_json
from medil.layers.blocks import space_to_depth
from medil.model.base import LatentAutoencoder
from medil.model.weights import (
    load_model,
    load_release,
    readable,
    with_weights,
    write_weights,
)
from medil.synth.attributes import Spread
from medil.system.device import place_model, training_precision
from medil.system.files import atomic_output, make_folder
from medil.system.tensors import read_tensors
from medil.training.run import Learner, Run
from medil.training.update import copy_parameters, take_step

RELEASE_NAME = "{}-ldm"  # name of a preset's released weights
AUTOENCODER = "autoencoder.safetensors"  # in the folder of a run


class FlowLearner(Learner):
    """A latent diffusion model on a set of latents."""

    verb, recipe, presets = "train-ldm", FlowRun, FLOW_PRESETS

    def __init__(self, config: FlowRun, latents: LatentSet) -> None:
        super().__init__(config)
        self.latents = latents
        self.known = latent_statistics(latents, config.model)
        self.facts["heads"] = latents.counts

    @classmethod
    def from_source(
        cls, config: FlowRun, out: Path, source: Path | None, seed: int,
        earlier: dict[str, Any] | None, fabric: Any, workers: int,
    ) -> Self:  # fmt: skip
        """Draw heads, encode them with the autoencoder of the weights `source`, or a release."""
        model = autoencoder_of(out, config.preset, source, resume=earlier is not None)
        return cls(config, encoded_set(model, config, out, source, fabric, workers))

    def prepare(self, seed: int, device: torch.device) -> None:
        """Move the latents to the device of the run."""
        self.latents = replace(self.latents, latents=self.latents.latents.to(device))

    def build(self) -> LatentFlow:
        """The flow with untrained weights."""
        return LatentFlow(self.config.model, self.known)

    def step(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, number: int, progress: float,
        seed: int, fabric: Any,
    ) -> dict[str, float]:  # fmt: skip
        """One optimiser step on some latents with noise."""
        settings = self.config.train
        bare: Any = getattr(model, "module", model)
        levels = draw_levels(bare, self.latents, self.config, np.random.default_rng([seed, number]))

        def part_loss(index: int, count: int) -> Tensor:
            part = [[t.chunk(count)[index] for t in level] for level in levels]
            with training_precision(fabric.device, settings.bf16):
                loss: Tensor = model(*part)
            return loss

        record = take_step(model, optimiser, settings, fabric, part_loss)
        return record | {"voxels": sum(level[0].numel() for level in levels)}

    @classmethod
    def check_weights(cls, config: Any, path: Path) -> None:
        """Refuse weights that are no flow's."""
        load_flow(path)

    def warm_start(self, run: Run, path: Path) -> None:
        """Start from another run's averaged weights, for the coarsest networks that fit.

        That run may have learned the latents of an earlier autoencoder: mean and spread are this
        run's own.

        Raises:
            InputError: Unreadable weights, latents of another shape, or no network that fits.
        """
        flow: Any = run.bare
        earlier, own, theirs = load_flow(path), flow, None
        if earlier.known.mean.shape != own.known.mean.shape:
            raise InputError(f"{path} samples latents of another shape; begin without it.")
        for mine, other in zip(_levels(flow), _levels(earlier), strict=False):
            if mine.config != other.config:
                break
            own, theirs = mine, other
        if theirs is None:
            raise InputError(f"no network of {path} has the shape of this run's; begin without it.")
        copy_parameters(theirs, own)
        same = earlier.known.autoencoder_id == flow.known.autoencoder_id
        run.begin_from(earlier, whole=own is flow, same_latents=same)

    def save_weights(self, ema: nn.Module, path: Path, facts: dict[str, Any]) -> None:
        """Write the averaged weights in half precision, with configuration and statistics."""
        save_flow(ema, self.config, path, facts)


def keep_autoencoder(source: Path | None, out: Path, fabric: Any) -> None:
    """Copy named weights into the folder of a run, so that the folder is enough to resume from."""
    kept = out / AUTOENCODER
    if source and fabric.is_global_zero and not kept.exists():
        with atomic_output(kept) as temporary:
            shutil.copyfile(source, temporary)


def encoded_set(
    model: LatentAutoencoder, config: FlowRun | AppearanceRun, out: Path, source: Path | None,
    fabric: Any, workers: int, with_maps: bool = False,
) -> LatentSet:  # fmt: skip
    """Make the folder of a run and encode its training set there: heads, and scans if it has any.

    Raises:
        InputError: No label maps, no scan where a share of them is asked for, or an autoencoder
            without trained weights.
    """
    make_folder(out)
    keep_autoencoder(source, out, fabric)
    with fabric.rank_zero_first(local=True):
        place_model(model, fabric.device)
        heads = draw_heads("train", range(config.heads), out / "heads", processes=workers)
        latents = encode_heads(model, heads, out / "latents", with_maps)
        if config.real_share:
            scans = encode_scans(model, load_segmenter_release(), out / "latents")
            latents = latents.with_scans(scans if with_maps else replace(scans, labels=()))
    return latents


def autoencoder_of(
    out: Path, preset: str, weights: Path | None = None, resume: bool = False
) -> LatentAutoencoder:
    """The autoencoder whose latents a run learns: that of `weights`, else the preset's release.

    The folder of a run that is resumed holds a copy of weights that are not a release.

    Raises:
        InputError: Unreadable weights, or not those that the run began with.
    """
    named = load_model(weights) if weights else None
    if named and not resume:
        return named
    kept = out / AUTOENCODER
    if resume and kept.is_file():
        own = load_model(kept)
    else:
        own = load_release("tiny" if preset == "test" else preset)
    if named and named.weights_id != own.weights_id:
        raise InputError(f"the run in {out} learns latents of another autoencoder than {weights}.")
    return own


def draw_levels(
    flow: LatentFlow, latents: LatentSet, config: FlowRun, rng: np.random.Generator
) -> list[list[Tensor]]:
    """Draw the data of a step: the arguments of `LatentFlow.loss`, level by level.

    Returns:
        For the flow and each coarser one: latents, noise, times, conditions, and block
        means of the coarser flow.
    """
    settings = config.train
    levels: list[list[Tensor]] = []
    level: LatentFlow | None = flow
    count = settings.batch  # latents
    factor = 1  # latent cells per cell of the level along each axis
    while level is not None:
        chosen = [latents.draw(config.real_share, rng) for _ in range(count)]
        blocks = block_means(latents.latents[chosen], factor)
        x = space_to_depth(level.centred(blocks), level.config.fold)
        shift = settings.shift if level.coarse is None else settings.given_shift
        noise, times = _normal(x, rng), draw_times(count, shift, rng).to(x.device)
        known = [latents.known_of(k) for k in chosen]
        conditions = flow.embed_conditions(
            [{name: one[name] for name in flow.known.spreads} for one in known]
        )
        drawn = [x, noise, times, hide(conditions, settings, rng)]
        if level.coarse is not None:
            means = level.coarse.centred(block_means(blocks, level.config.block))
            drawn.append(means + settings.given_noise * _normal(means, rng))
            count, factor = count * settings.coarse_draws, factor * level.config.block
        levels.append(drawn)
        level = level.coarse
    return levels


def _normal(like: Tensor, rng: np.random.Generator) -> Tensor:
    """Normal noise of a tensor's shape, drawn on its device."""
    generator = torch.Generator(like.device).manual_seed(int(rng.integers(2**31)))
    return torch.randn(like.shape, generator=generator, device=like.device)


def _levels(flow: LatentFlow) -> list[LatentFlow]:
    """A flow and the coarser ones under it, the coarsest first."""
    return [*(_levels(flow.coarse) if flow.coarse is not None else []), flow]


# Weights in and out


def save_flow(flow: Any, config: FlowRun, path: Path, facts: dict[str, Any]) -> Path:
    """Write a flow's weights, configuration, grid, ranges, and the id of its autoencoder."""
    known: LatentStatistics = flow.known
    about = {
        **grid_to_json(known.grid),
        "spreads": {name: asdict(spread) for name, spread in known.spreads.items()},
        "autoencoder_id": known.autoencoder_id,
    }
    return write_weights(path, flow, FLOW, config, facts, {"known": json.dumps(about)})


def load_flow(path: str | Path) -> LatentFlow:
    """The flow that a weights file of `save_flow` describes, in evaluation mode.

    Raises:
        InputError: Unreadable, of another format, or not fitting its own configuration.
    """
    tensors, meta = read_tensors(path, FLOW)
    with readable(path):
        config, about = FlowRun.from_json(meta["config"]), parsed(meta["known"])
        spreads = {name: Spread(**spread) for name, spread in about["spreads"].items()}
        grid, source = grid_from_json(about), about["autoencoder_id"]
    known = _read_statistics(tensors, "", config.model, grid, spreads, source)
    flow = with_weights(partial(LatentFlow, config.model, known), tensors, meta, path)
    flow.settings = config
    return flow


def _read_statistics(
    tensors: dict[str, Tensor], prefix: str, config: FlowConfig, grid: Grid,
    spreads: dict[str, Spread], autoencoder_id: str,
) -> LatentStatistics:  # fmt: skip
    """The latent statistics of a weights file, of a flow and the coarser ones under it."""
    coarse = None
    if config.coarse:
        under = coarser_grid(grid, config.block)
        coarse = _read_statistics(
            tensors, f"{prefix}coarse.", config.coarse, under, spreads, autoencoder_id
        )
    try:
        mean, std = tensors[f"{prefix}mean"].float(), tensors[f"{prefix}std"].float()
    except KeyError as error:
        raise InputError(f"the weights of this flow lack {error.args[0]}.") from error
    return LatentStatistics(mean, std, grid, spreads, autoencoder_id, coarse)


def load_flow_release(name: str = "tiny") -> LatentFlow:
    """A released flow by the name of its preset; see `release_path`.

    Raises:
        InputError: No such preset, one that has not been trained yet, or no copy of its weights.
    """
    flow_preset(name)
    return load_flow(release_path(RELEASE_NAME.format(name)))
