"""Train an appearance flow on latents and tissue maps of real scans and synthetic heads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from medil.checksums import parsed
from medil.data.releases import release_path
from medil.diffusion.appearance import AppearanceFlow, AppearanceStatistics, draw_times
from medil.diffusion.config import APPEARANCE_PRESETS, AppearanceRun, AppearanceTraining
from medil.diffusion.latents import LatentSet
from medil.diffusion.training import autoencoder_of, encoded_set
from medil.errors import InputError
from medil.formats import APPEARANCE
from medil.grid import Grid
from medil.model.base import LatentAutoencoder
from medil.model.weights import readable, with_weights, write_weights
from medil.synth.attributes import Spread
from medil.system.device import training_precision
from medil.system.tensors import read_tensors
from medil.training.run import Learner, Run
from medil.training.update import copy_parameters, take_step

RELEASE_NAME = "{}-appearance"  # name of a preset's released weights


class AppearanceLearner(Learner):
    """An appearance flow on a set of latents and their tissue maps."""

    verb, recipe, presets = "train-appearance", AppearanceRun, APPEARANCE_PRESETS

    def __init__(self, config: AppearanceRun, latents: LatentSet, air: Tensor) -> None:
        super().__init__(config)
        self.latents = latents
        self.known = statistics(latents, config, air)
        self.facts["heads"] = latents.counts

    @classmethod
    def from_source(
        cls, config: AppearanceRun, out: Path, source: Path | None, seed: int,
        earlier: dict[str, Any] | None, fabric: Any, workers: int,
    ) -> Self:  # fmt: skip
        """Encode heads and scans with the autoencoder of the weights `source`, or a release."""
        model = autoencoder_of(out, config.preset, source, resume=earlier is not None)
        latents = encoded_set(model, config, out, source, fabric, workers, with_maps=True)
        return cls(config, latents, air_latent(model))

    def build(self) -> AppearanceFlow:
        """The flow with untrained weights."""
        return AppearanceFlow(self.config.model, self.known)

    def step(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, number: int, progress: float,
        seed: int, fabric: Any,
    ) -> dict[str, float]:  # fmt: skip
        """One optimiser step on patches of some pairs."""
        settings = self.config.train
        bare: Any = getattr(model, "module", model)
        rng = np.random.default_rng([seed, number])
        drawn = draw_batch(bare, self.latents, self.config, rng)

        def part_loss(index: int, count: int) -> Tensor:
            part = [t.chunk(count)[index].to(fabric.device) for t in drawn]
            with training_precision(fabric.device, settings.bf16):
                loss: Tensor = model(*part)
            return loss

        record = take_step(model, optimiser, settings, fabric, part_loss)
        return record | {"voxels": drawn[0].numel()}

    @classmethod
    def check_weights(cls, config: AppearanceRun, path: Path) -> None:
        """Refuse weights that are no appearance flow's, or of another network."""
        if load_appearance(path).config != config.model:
            raise InputError(f"{path} holds weights of another network; begin without it.")

    def warm_start(self, run: Run, path: Path) -> None:
        """Start from another run's averaged weights.

        Raises:
            InputError: Unreadable weights, of other latents or of another network.
        """
        self.check_weights(self.config, path)
        earlier, flow = load_appearance(path), run.bare
        assert isinstance(flow, AppearanceFlow)
        if earlier.known.autoencoder_id != flow.known.autoencoder_id:
            raise InputError(f"{path} samples latents of another autoencoder; begin without it.")
        copy_parameters(earlier, flow)
        run.begin_from(earlier)

    def save_weights(self, ema: nn.Module, path: Path, facts: dict[str, Any]) -> None:
        """Write the averaged weights in half precision, with configuration and statistics."""
        assert isinstance(ema, AppearanceFlow)
        save_appearance(ema, self.config, path, facts)


def statistics(latents: LatentSet, config: AppearanceRun, air: Tensor) -> AppearanceStatistics:
    """Mean and spread of the latents in cells that hold tissue, and the ranges of covariates.

    Raises:
        InputError: A covariate that no head has.
    """
    cells = zip(latents.latents, latents.labels, strict=True)
    voxels = config.model.voxels
    tissue = torch.cat([mean[:, holds_tissue(labels, voxels)].T for mean, labels in cells])
    spreads = latents.spreads(config.model.covariates)
    std = tissue.std(0).clamp(min=1e-6)
    pitch_mm = float(latents.grid.spacing_mm[0])
    return AppearanceStatistics(tissue.mean(0), std, air, pitch_mm, spreads, latents.weights_id)


def holds_tissue(labels: Tensor, voxels: int) -> Tensor:
    """[d, h, w] bool: the latent cells that hold any tissue."""
    cells = labels.unfold(0, voxels, voxels).unfold(1, voxels, voxels).unfold(2, voxels, voxels)
    return cells.amax((-3, -2, -1)) > 0


@torch.inference_mode()
def air_latent(model: LatentAutoencoder) -> Tensor:
    """[C]: the latent of a cell in the middle of an empty volume."""
    pitch_mm, cells = model.config.latent_spacing_mm, 24
    latent_grid = Grid.from_spacing([cells] * 3, pitch_mm)
    grid = latent_grid.resized([round(cells * pitch_mm)] * 3)
    mean, _ = model.encode_tensor(
        torch.zeros(1, 1, *grid.shape, device=model.device), grid, latent_grid
    )
    return mean[0, :, cells // 2, cells // 2, cells // 2].float().cpu()


def draw_batch(
    flow: AppearanceFlow, latents: LatentSet, config: AppearanceRun, rng: np.random.Generator
) -> list[Tensor]:
    """The arguments of `AppearanceFlow.loss` for random patches of a set."""
    settings, voxels = config.train, config.model.voxels
    means, maps, told = [], [], []
    for _ in range(settings.batch):
        index = latents.draw(config.real_share, rng)
        labels = latents.labels[index]
        start = patch_start(labels, settings, voxels, rng)
        means.append(latents.latents[index][(slice(None), *_cube(start, settings.patch))])
        maps.append(labels[_cube([voxels * a for a in start], voxels * settings.patch)])
        told.append(seen(latents.known_of(index), flow.known.spreads, settings.hidden_share, rng))
    x = flow.normalise(torch.stack(means).to(flow.mean)).cpu()
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    noise = torch.randn(x.shape, generator=generator)
    times = draw_times(len(x), rng)
    return [x, noise, times, torch.stack(maps), flow.embed_covariates(told).cpu()]


def patch_start(
    labels: Tensor, settings: AppearanceTraining, voxels: int, rng: np.random.Generator
) -> list[int]:
    """The first latent cell of a patch around a random voxel of tissue, inside the box."""
    cells = [n // voxels for n in labels.shape]
    most = [max(0, n - settings.patch) for n in cells]
    while True:
        middle = [int(rng.integers(n)) for n in labels.shape]
        if labels[tuple(middle)] > 0:
            break
    low = [m // voxels - settings.patch // 2 for m in middle]
    return [min(max(0, a), b) for a, b in zip(low, most, strict=True)]


def _cube(start: Sequence[int], side: int) -> tuple[slice, ...]:
    return tuple(slice(a, a + side) for a in start)


def seen(
    covariates: Mapping[str, float], spreads: Mapping[str, Spread], hidden_share: float,
    rng: np.random.Generator,
) -> dict[str, float]:  # fmt: skip
    """The covariates of a pair that a step tells: those known, some of them hidden."""
    return {
        name: covariates[name]
        for name in spreads
        if rng.random() >= hidden_share and name in covariates
    }


# Weights in and out


def save_appearance(
    flow: AppearanceFlow, config: AppearanceRun, path: Path, facts: dict[str, Any]
) -> Path:
    """Write a flow's weights, configuration, ranges of covariates, and its autoencoder's id."""
    known = flow.known
    about = {
        "pitch_mm": known.pitch_mm,
        "spreads": {name: asdict(spread) for name, spread in known.spreads.items()},
        "autoencoder_id": known.autoencoder_id,
    }
    return write_weights(path, flow, APPEARANCE, config, facts, {"known": json.dumps(about)})


def load_appearance(path: str | Path) -> AppearanceFlow:
    """The flow that a weights file of `save_appearance` describes, in evaluation mode.

    Raises:
        InputError: Unreadable, of another format, or not fitting its own configuration.
    """
    tensors, meta = read_tensors(path, APPEARANCE)
    with readable(path):
        config, about = AppearanceRun.from_json(meta["config"]), parsed(meta["known"])
        spreads = {name: Spread(**spread) for name, spread in about["spreads"].items()}
        mean, std, air = (tensors[name].float() for name in ("mean", "std", "air"))
        pitch_mm, autoencoder_id = about["pitch_mm"], about["autoencoder_id"]
    known = AppearanceStatistics(mean, std, air, pitch_mm, spreads, autoencoder_id)
    flow = with_weights(partial(AppearanceFlow, config.model, known), tensors, meta, path)
    flow.settings = config
    return flow


def load_appearance_release(name: str = "tiny") -> AppearanceFlow:
    """A released flow by the name of its preset; see `release_path`.

    Raises:
        InputError: No copy of its weights.
    """
    return load_appearance(release_path(RELEASE_NAME.format(name)))
