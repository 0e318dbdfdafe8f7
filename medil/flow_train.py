"""Train a latent diffusion model: heads drawn once, encoded once, then steps in `medil.loop`."""

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

from medil.attributes import ATTRIBUTES, Spread
from medil.checkpoint import RELEASES, load_release, read_progress, read_tensors, weights_digest
from medil.config import FLOW_PRESETS, FlowRun
from medil.errors import InputError
from medil.files import atomic_output
from medil.flow import LatentFlow, Measure, draw_times, hide, measure
from medil.grid import Grid
from medil.latentset import LatentSet, draw_heads, encode_heads
from medil.loop import CONFIG, STATE, WEIGHTS, Learner, Run, follow, launched
from medil.processes import check_batch, launch
from medil.train import parts

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
        self.known = measure(latents, config.model.conditions)

    def build(self) -> LatentFlow:
        """The flow with untrained weights."""
        return LatentFlow(self.config.model, self.known)

    def draw(self, number: int, seed: int) -> tuple[Tensor, Tensor, Tensor, list[dict], Any]:
        """A step's latents, noise, times and conditions, and its random numbers."""
        settings = self.config.train
        rng = np.random.default_rng([seed, number])
        chosen = rng.integers(len(self.latents.latents), size=settings.batch)
        x = self.latents.latents[torch.from_numpy(chosen)]
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        noise = torch.randn(x.shape, generator=generator)
        times = draw_times(settings.batch, settings.shift, rng)
        names = list(self.known.spreads)
        known = [dict(zip(names, row, strict=True)) for row in self._known(chosen)]
        return x, noise, times, known, rng

    def _known(self, chosen: np.ndarray) -> list[list[float]]:
        columns = [list(ATTRIBUTES).index(name) for name in self.known.spreads]
        return self.latents.known[torch.from_numpy(chosen)][:, columns].tolist()

    def step(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, number: int, share: float,
        seed: int, fabric: Any,
    ) -> dict[str, float]:  # fmt: skip
        """Noise some latents, learn the velocity back to them."""
        settings = self.config.train
        bare: Any = getattr(model, "module", model)
        x, noise, times, known, rng = self.draw(number, seed)
        told = hide(bare.tell(known).cpu(), settings, rng)
        device, optimised = bare.mean.device, []
        optimiser.zero_grad(set_to_none=True)
        for index, (own, count) in enumerate(parts(fabric, settings.accumulate)):
            batch = [t.chunk(count)[own].to(device) for t in (x, noise, times, told)]
            batch[0] = bare.inwards(batch[0])
            batch[1] = bare.folded(batch[1])
            with fabric.no_backward_sync(model, enabled=index + 1 < settings.accumulate):
                with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
                    loss = model(*batch).mean()
                fabric.backward(loss / settings.accumulate)
            optimised.append(loss.detach())
        norm = nn.utils.clip_grad_norm_(bare.parameters(), settings.clip_norm).item()
        value = fabric.all_reduce(torch.stack(optimised).mean()).item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise InputError(
                f"the loss is {value:g} and its gradient {norm:g}; lower learning_rate."
            )
        optimiser.step()
        return {"loss": value, "gradient_norm": norm, "voxels": x.numel()}

    def save_weights(self, ema: nn.Module, path: Path, facts: dict) -> None:
        """Half precision, with the configuration and what is known of the latents."""
        save_flow(ema, self.config, path, {**facts, "heads": len(self.latents.latents)})


def train_flow(
    config: FlowRun,
    latents: LatentSet,
    out: Path,
    seed: int = 0,
    resume: bool = False,
    fabric: Any = None,
    time_budget_s: float = math.inf,
) -> LatentFlow:
    """Train on latents into a folder that exists, or go on; see `medil.loop`.

    Args:
        config: Of the run.
        latents: From `encode_heads`.
        out: Folder of the run, which exists.
        seed: Of weights, data order and noise.
        resume: Go on from the folder's state.
        fabric: From `launch`; one process when None.
        time_budget_s: Wall time of this call.

    Returns:
        The averaged weights' model.

    Raises:
        InputError: A loss that is not finite, or MONAI is missing.
    """
    began = time.monotonic()
    run = Run(Flowing(config, latents), out, seed, launched(fabric))
    if resume:
        run.restore()
    model: Any = follow(run, resume, time_budget_s, began)
    return model


def main_train_flow(
    out: Path,
    name: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    time_budget_s: float = math.inf,
    devices: int | None = None,
    accelerator: str = "auto",
    heads: int | None = None,
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
        settings: Fields of `FlowTraining` to change, unless None.

    Raises:
        InputError: Unknown preset, a run that exists, nothing to resume, or options that
            contradict the run that is resumed.
    """
    began = time.monotonic()
    out, changed = Path(out), {k: v for k, v in settings.items() if v is not None}
    if (out / STATE).exists() and not resume:
        raise InputError(f"{out} holds a run already; resume it or choose another folder.")
    if resume:
        config, seed = _resumed(out, name, seed, heads, changed)
    else:
        config, seed = flow_preset(name or "tiny"), seed or 0
        config = replace(
            config, train=replace(config.train, **changed), heads=heads or config.heads
        )
    model = load_release("tiny" if config.preset == "test" else config.preset)
    fabric = launch(devices, accelerator)
    check_batch(config.train, fabric.world_size)
    out.mkdir(parents=True, exist_ok=True)
    with fabric.rank_zero_first(local=True):
        drawn = draw_heads("train", range(config.heads), out / "heads")
        latents = encode_heads(model, drawn, out / "latents")
    budget_s = time_budget_s - (time.monotonic() - began)
    train_flow(config, latents, out, seed, resume, fabric, budget_s)


def _resumed(
    out: Path, name: str | None, seed: int | None, heads: int | None, changed: dict[str, Any]
) -> tuple[FlowRun, int]:
    """Configuration and seed of the run in a folder; what is asked for must agree."""
    if not ((out / STATE).exists() and (out / CONFIG).exists()):
        raise InputError(f"there is no run to resume in {out}.")
    config = FlowRun.from_json((out / CONFIG).read_text("utf-8"))
    begun = read_progress(out / STATE)["seed"]
    has = {"preset": config.preset, "seed": begun, "heads": config.heads, **vars(config.train)}
    for option, value in {"preset": name, "seed": seed, "heads": heads, **changed}.items():
        if value is not None and value != has[option]:
            raise InputError(
                f"the run in {out} has {option} {has[option]}, not {value}; "
                "resume it as it is, or choose another folder."
            )
    return config, begun


def flow_preset(name: str) -> FlowRun:
    """A preset by name.

    Raises:
        InputError: No such preset; the message lists those there are.
    """
    if name not in FLOW_PRESETS:
        raise InputError(f"there is no preset {name!r}; choose one of {', '.join(FLOW_PRESETS)}.")
    return FLOW_PRESETS[name]


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
    known = Measure(
        tensors["mean"].float(),
        tensors["std"].float(),
        Grid(tuple(about["shape"]), np.array(about["affine_vox2ras"])),
        {name: Spread(**spread) for name, spread in about["spreads"].items()},
        about["autoencoder_id"],
    )
    flow = LatentFlow(config.model, known)
    try:
        flow.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the model that its configuration names.") from error
    flow.weights_id = weights_digest(flow)
    flow.facts = {**json.loads(meta["facts"]), "config_hash": config.digest()}
    flow.settings = config
    return flow.eval()


def load_flow_release(name: str = "tiny") -> LatentFlow:
    """A released flow by the name of its preset.

    Raises:
        InputError: No such preset, or one that has not been trained yet.
    """
    flow_preset(name)
    path = RELEASES / f"{RELEASE_NAME.format(name)}.safetensors"
    if not path.is_file():
        raise InputError(f"the latent diffusion model {name!r} has not been trained yet.")
    return load_flow(path)


__all__ = [
    "STATE", "WEIGHTS", "Flowing", "flow_preset", "load_flow", "load_flow_release",
    "main_train_flow", "save_flow", "train_flow",
]  # fmt: skip
