"""Train a latent diffusion model: heads drawn and encoded once, then steps of a run."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medil.config import FlowConfig, FlowRun, FlowTraining, flow_preset
from medil.data.releases import release_path
from medil.diffusion.flow import (
    LatentFlow,
    Measure,
    block_means,
    coarser_grid,
    draw_times,
    hide,
    measure,
)
from medil.diffusion.latents import LatentSet, draw_heads, encode_heads
from medil.errors import InputError
from medil.grid import Grid
from medil.layers.blocks import space_to_depth
from medil.model.weights import load_release, read_tensors, weights_id
from medil.synth.attributes import ATTRIBUTES, Spread
from medil.system.device import placed
from medil.system.files import atomic_output
from medil.training.launch import check_batch, launch
from medil.training.run import (
    STATE,
    WEIGHTS,
    Learner,
    Run,
    follow,
    launched,
    refuse_a_run,
    settings_of,
)
from medil.training.update import parts

FORMAT = "medil-flow-1"
RELEASE_NAME = "{}-ldm"  # of a preset's released weights


class Flowing(Learner):
    """A latent diffusion model on a set of latents.

    Args:
        config: Of the run.
        latents: The training set.
    """

    verb = "train-ldm"

    def __init__(self, config: FlowRun, latents: LatentSet) -> None:
        super().__init__(config)
        self.latents = latents
        self.known = measure(latents, config.model)

    def prepare(self, seed: int, device: torch.device) -> None:
        """Latents go where the steps are."""
        self.latents = replace(self.latents, latents=self.latents.latents.to(device))

    def build(self) -> LatentFlow:
        """The flow with untrained weights."""
        return LatentFlow(self.config.model, self.known)

    def step(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, number: int, share: float,
        seed: int, fabric: Any,
    ) -> dict[str, float]:  # fmt: skip
        """Noise some latents, learn the way back to them."""
        settings = self.config.train
        bare: Any = getattr(model, "module", model)
        levels = draw_levels(bare, self.latents, settings, np.random.default_rng([seed, number]))
        losses = []
        optimiser.zero_grad(set_to_none=True)
        for index, (own, count) in enumerate(parts(fabric, settings.accumulate)):
            share_of_batch = [[t.chunk(count)[own] for t in level] for level in levels]
            with fabric.no_backward_sync(model, enabled=index + 1 < settings.accumulate):
                with torch.autocast(bare.mean.device.type, torch.bfloat16, enabled=settings.bf16):
                    loss = model(*share_of_batch)
                fabric.backward(loss / settings.accumulate)
            losses.append(loss.detach())
        norm = nn.utils.clip_grad_norm_(bare.parameters(), settings.clip_norm).item()
        value = fabric.all_reduce(torch.stack(losses).mean()).item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise InputError(
                f"the loss is {value:g} and its gradient {norm:g}; lower learning_rate."
            )
        optimiser.step()
        voxels = sum(level[0].numel() for level in levels)
        return {"loss": value, "gradient_norm": norm, "voxels": voxels}

    def save_weights(self, ema: nn.Module, path: Path, facts: dict) -> None:
        """Half precision, with the configuration and what is known of the latents."""
        save_flow(ema, self.config, path, {**facts, "heads": len(self.latents.latents)})


def draw_levels(
    flow: LatentFlow, latents: LatentSet, settings: FlowTraining, rng: np.random.Generator
) -> list[list[Tensor]]:
    """What a step learns from: arguments of `LatentFlow.loss`, level by level.

    Args:
        flow: On the latents' device.
        latents: The training set.
        settings: How many, how noisy, how much is told.
        rng: Of the step.

    Returns:
        For the flow and each coarser one: latents, noise, times, what is told, and what the
        coarser flow gives.
    """
    columns = [list(ATTRIBUTES).index(name) for name in flow.known.spreads]
    levels: list[list[Tensor]] = []
    level: LatentFlow | None = flow
    count, factor = settings.batch, 1  # of latents, and cells an axis in one of the level's
    while level is not None:
        chosen = torch.from_numpy(rng.integers(len(latents.latents), size=count))
        blocks = block_means(latents.latents[chosen], factor)
        x = space_to_depth(level.centred(blocks), level.config.fold)
        shift = settings.shift if level.coarse is None else settings.given_shift
        noise, times = _normal(x, rng), draw_times(count, shift, rng).to(x.device)
        known = latents.known[chosen][:, columns].tolist()
        told = flow.tell([dict(zip(flow.known.spreads, row, strict=True)) for row in known])
        drawn = [x, noise, times, hide(told, settings, rng)]
        if level.coarse is not None:
            given = level.coarse.centred(block_means(blocks, level.config.block))
            drawn.append(given + settings.given_noise * _normal(given, rng))
            count, factor = count * settings.coarse_draws, factor * level.config.block
        levels.append(drawn)
        level = level.coarse
    return levels


def _normal(like: Tensor, rng: np.random.Generator) -> Tensor:
    """Normal numbers of a tensor's shape, drawn on its device."""
    generator = torch.Generator(like.device).manual_seed(int(rng.integers(2**31)))
    return torch.randn(like.shape, generator=generator, device=like.device)


def train_flow(
    config: FlowRun,
    latents: LatentSet,
    out: Path,
    seed: int = 0,
    resume: bool = False,
    fabric: Any = None,
    time_budget_s: float = math.inf,
    warm_start_from: Path | None = None,
) -> LatentFlow:
    """Train on latents into a folder that exists, or go on; see `medil.training.run`.

    Args:
        config: Of the run.
        latents: From `encode_heads`.
        out: Folder of the run, which exists.
        seed: Of weights, data order and noise.
        resume: Go on from the folder's state.
        fabric: From `launch`; one process when None.
        time_budget_s: Wall time of this call.
        warm_start_from: Weights to begin from.

    Returns:
        The averaged weights' model.

    Raises:
        InputError: A loss that is not finite, MONAI is missing, or weights to begin from of
            which no network fits.
    """
    began = time.monotonic()
    run = Run(Flowing(config, latents), out, seed, launched(fabric))
    if resume:
        run.restore()
    elif warm_start_from:
        warm_start(run, warm_start_from)
    model: Any = follow(run, resume, time_budget_s, began)
    return model


def warm_start(run: Run, path: Path) -> None:
    """Begin from another run's averaged weights: from the coarsest network up, those of one shape.

    Raises:
        InputError: Unreadable weights, of other latents, or none of their networks fits.
    """
    flow: Any = run.bare
    earlier, own, theirs = load_flow(path), flow, None
    if earlier.known.autoencoder_id != own.known.autoencoder_id:
        raise InputError(f"{path} samples latents of another autoencoder; begin without it.")
    for mine, other in zip(_levels(flow), _levels(earlier), strict=False):
        if mine.config != other.config:
            break
        own, theirs = mine, other
    if theirs is None:
        raise InputError(f"no network of {path} has the shape of this run's; begin without it.")
    values = dict(theirs.named_parameters())
    for name, parameter in own.named_parameters():
        parameter.data.copy_(values[name])
    run.ema.load_state_dict(run.bare.state_dict())
    facts = {name: earlier.facts.get(name) for name in ("step", "minutes", "commit")}
    run.progress["earlier"] = {"weights": earlier.weights_id, "whole": own is flow, **facts}


def _levels(flow: LatentFlow) -> list[LatentFlow]:
    """A flow and those under it, the coarsest first."""
    return [*(_levels(flow.coarse) if flow.coarse is not None else []), flow]


def main_train_flow(
    out: Path,
    name: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    time_budget_s: float = math.inf,
    devices: int | None = None,
    accelerator: str = "auto",
    heads: int | None = None,
    warm_start_from: Path | None = None,
    processes: int = 1,
    **settings: Any,
) -> None:
    """Draw heads, encode them with a release, train a flow (the command line's `train-ldm`).

    Args:
        out: Folder of the run; made when missing.
        name: Preset; `tiny` when None, or the resumed run's.
        seed: Of weights, data order and noise; 0 when None, or the resumed run's.
        resume: Go on from `out/state.safetensors`.
        time_budget_s: Stop this call after so long, to be resumed.
        devices: Processes on this machine.
        accelerator: "auto", "cpu" or "cuda".
        heads: How many to draw; the preset's when None.
        warm_start_from: Weights of another run to begin from, as far as their networks fit.
        processes: That draw heads; more than one needs a guarded main module.
        settings: Fields of `FlowTraining` to change, unless None.

    Raises:
        InputError: Unknown preset, a run that exists, nothing to resume, or options that
            contradict the run that is resumed.
    """
    began = time.monotonic()
    out, changed = Path(out), {k: v for k, v in settings.items() if v is not None}
    if resume:
        if warm_start_from:
            raise InputError("a resumed run goes on from its own weights; name no others.")
        asked = {"preset": name, "seed": seed, "heads": heads}
        config, progress = settings_of(out, FlowRun.from_json, asked, changed)
        seed = progress["seed"]
    else:
        refuse_a_run(out)
        config, seed = flow_preset(name or "tiny"), seed or 0
        config = replace(
            config, train=replace(config.train, **changed), heads=heads or config.heads
        )
    fabric = launch(devices, accelerator)
    model = load_release("tiny" if config.preset == "test" else config.preset)
    model = placed(model, fabric.device)
    check_batch(config.train, fabric.world_size)
    out.mkdir(parents=True, exist_ok=True)
    with fabric.rank_zero_first(local=True):
        drawn = draw_heads("train", range(config.heads), out / "heads", processes=processes)
        latents = encode_heads(model, drawn, out / "latents")
    budget_s = time_budget_s - (time.monotonic() - began)
    train_flow(config, latents, out, seed, resume, fabric, budget_s, warm_start_from)


# Weights in and out


def save_flow(flow: Any, config: FlowRun, path: Path, facts: dict) -> Path:
    """Write a flow's weights, configuration, grid, ranges, and whose latents it samples.

    Args:
        flow: The trained `LatentFlow`.
        config: Of its run.
        path: Where; a file that exists is replaced.
        facts: Of the run, JSON-able.

    Returns:
        The path.
    """
    known: Measure = flow.known
    about = {
        "shape": list(known.grid.shape),
        "affine_vox2ras": known.grid.affine_vox2ras.tolist(),
        "spreads": {name: asdict(spread) for name, spread in known.spreads.items()},
        "autoencoder_id": known.autoencoder_id,
    }
    meta = {"format": FORMAT, "config": config.to_json(), "known": json.dumps(about)}
    tensors = {k: v.to(torch.float16).contiguous() for k, v in flow.state_dict().items()}
    with atomic_output(path, force=True) as temporary:
        save_file(tensors, temporary, {**meta, "facts": json.dumps(facts)})
    return path


def load_flow(path: str | Path) -> LatentFlow:
    """The flow that a weights file of `save_flow` describes, in evaluation mode.

    Raises:
        InputError: Unreadable, of another format, or not fitting its own configuration.
    """
    tensors, meta = read_tensors(path, FORMAT)
    config, about = FlowRun.from_json(meta["config"]), json.loads(meta["known"])
    grid = Grid(tuple(about["shape"]), np.array(about["affine_vox2ras"]))
    spreads = {name: Spread(**spread) for name, spread in about["spreads"].items()}
    known = _read_measure(tensors, "", config.model, grid, spreads, about["autoencoder_id"])
    flow = LatentFlow(config.model, known)
    try:
        flow.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the model that its configuration names.") from error
    flow.weights_id = weights_id(flow)
    flow.facts = {**json.loads(meta["facts"]), "config_hash": config.digest()}
    flow.settings = config
    return flow.eval()


def _read_measure(
    tensors: dict[str, Tensor], prefix: str, config: FlowConfig, grid: Grid,
    spreads: dict[str, Spread], autoencoder_id: str,
) -> Measure:  # fmt: skip
    """What a weights file says of the latents of a flow, and of the coarser ones under it."""
    coarse = None
    if config.coarse:
        under = coarser_grid(grid, config.block)
        coarse = _read_measure(
            tensors, f"{prefix}coarse.", config.coarse, under, spreads, autoencoder_id
        )
    try:
        mean, std = tensors[f"{prefix}mean"].float(), tensors[f"{prefix}std"].float()
    except KeyError as error:
        raise InputError(f"the weights of this flow lack {error.args[0]}.") from error
    return Measure(mean, std, grid, spreads, autoencoder_id, coarse)


def load_flow_release(name: str = "tiny") -> LatentFlow:
    """A released flow by the name of its preset; see `release_path`.

    Raises:
        InputError: No such preset, one that has not been trained yet, or no copy of its weights.
    """
    flow_preset(name)
    return load_flow(release_path(RELEASE_NAME.format(name)))


__all__ = [
    "STATE", "WEIGHTS", "Flowing", "load_flow", "load_flow_release",
    "main_train_flow", "save_flow", "train_flow",
]  # fmt: skip
