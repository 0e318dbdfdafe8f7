"""Two-stage training, top to bottom: whole volumes at low resolution, then native patches.

A run is a folder: `config.json`, `log.jsonl`, `state.safetensors` (to go on from) and
`weights.safetensors` (the averaged weights). What a step sees is a function of (seed, step);
its learning rate follows the share of the wall time that is spent.
"""

from __future__ import annotations

import copy
import json
import math
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from medil import manifest
from medil.anatomy import label_anatomy, tissue_anatomy
from medil.autoencoder import MedIL
from medil.checkpoint import load_state, save_state, save_weights, start_from
from medil.cohort import CohortConfig, subject
from medil.config import DataConfig, RunConfig, TrainConfig, preset
from medil.errors import InputError
from medil.losses import total_loss
from medil.sampling import Scan, Step, global_step, patch_step, prepare_scan
from medil.volume import load, save


def main_train(
    name: str,
    out: Path,
    seed: int = 0,
    resume: bool = False,
    minutes: float | None = None,
    start: Path | None = None,
) -> None:
    """Train a preset into a folder (the command line's `train`).

    Args:
        name: Preset.
        out: Folder of the run; made when missing.
        seed: Of weights, data order and noise.
        resume: Go on from `out/state.safetensors`.
        minutes: Wall time of the whole run; the preset's when None.
        start: Weights to begin from, perhaps of a shallower model.

    Raises:
        InputError: Unknown preset, a run that exists, or nothing to resume.
    """
    config = preset(name)
    if minutes is not None:
        config = replace(config, train=replace(config.train, minutes=minutes))
    out = Path(out)
    if (out / "state.safetensors").exists() and not resume:
        raise InputError(f"{out} holds a run already; resume it or choose another folder.")
    if resume and not (out / "state.safetensors").exists():
        raise InputError(f"there is no run to resume in {out}.")
    out.mkdir(parents=True, exist_ok=True)
    scans = training_scans(config.data, out / "cohort", seed)
    train(config, scans, out, seed, resume, start)


# Data


def training_scans(config: DataConfig, folder: Path, seed: int) -> list[Scan]:
    """The training set: a cohort drawn once into a folder, and real scans where they are.

    Label maps and real scans come through the manifests, their `train` split alone. Without
    them the cohort is painted on the MNI152 tissue maps.

    Args:
        config: How many, and how mixed.
        folder: Where the cohort's volumes are kept; those already there are not redrawn.
        seed: Added to the cohort's own.

    Returns:
        The scans, weighted.
    """
    draw_cohort(config, folder, seed)
    paths = [folder / f"subject{index:03d}.nii" for index in range(config.subjects)]
    scans = [prepare_scan(load(path), weight=1 / config.subjects) for path in paths]
    real = available_files("open_ms_t1")
    share = config.real_share / (1 - config.real_share)
    return scans + [prepare_scan(load(path), weight=share / len(real)) for path in real]


def available_files(name: str) -> list[Path]:
    """Files of a manifest's `train` split that need no network."""
    return [manifest.fetch(e) for e in manifest.entries(name, "train") if manifest.available(e)]


def draw_cohort(config: DataConfig, folder: Path, seed: int) -> None:
    """Draw the cohort into a folder, one anatomy after the other, keeping what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    labels: list[Path | None] = [*available_files("synthseg_labels")] or [None]
    bar = tqdm(total=config.subjects, desc="cohort", unit="subject")
    for start, path in enumerate(labels):
        anatomy = None
        for index in range(start, config.subjects, len(labels)):
            target = folder / f"subject{index:03d}.nii"
            if not target.exists():
                anatomy = anatomy or (label_anatomy(path) if path else tissue_anatomy())
                settings = cohort_settings(config, index)
                save(subject(anatomy, config.seed_cohort + seed, index, settings), target)
            bar.update()


def cohort_settings(config: DataConfig, index: int) -> CohortConfig:
    """Most subjects near 1 mm, the rest anywhere in the cohort's range."""
    settings = CohortConfig(
        noise=config.noise, texture=config.texture, slice_mm=config.slice_mm,
        max_tilt_deg=config.max_tilt_deg,
    )  # fmt: skip
    if (index * 0.618) % 1 < config.near_1mm_share:
        return replace(settings, spacing_mm=(0.9, 1.1), isotropic_share=1.0)
    return settings


# The loop


def train(
    config: RunConfig,
    scans: Sequence[Scan],
    out: Path,
    seed: int,
    resume: bool,
    start: Path | None = None,
) -> MedIL:
    """Run both stages; Ctrl-C saves and ends.

    Args:
        config: Of the run.
        scans: The training set.
        out: Folder of the run.
        seed: Of weights, data order and noise.
        resume: Go on from the folder's state.
        start: Weights to begin from, perhaps of a shallower model.

    Returns:
        The averaged weights' model.

    Raises:
        InputError: The loss became NaN; the last saved state stays.
    """
    torch.set_num_threads(config.train.threads)
    torch.manual_seed(seed)  # initial weights only; steps seed themselves
    started = commit()
    model = MedIL(config.model)
    earlier = start_from(model, start) if start else {}
    ema = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        model.parameters(), config.train.learning_rate, (0.9, config.train.beta2),
        weight_decay=config.train.weight_decay,
    )  # fmt: skip
    progress = {"step": 0, "elapsed_s": 0.0, "voxels": 0}
    if resume:
        progress = load_state(out / "state.safetensors", model, ema, optimiser)
    (out / "config.json").write_text(config.to_json() + "\n")
    try:
        _loop(config, scans, out, seed, model, ema, optimiser, progress)
    except KeyboardInterrupt:
        print(f"stopped at step {progress['step']}; resume to go on")
    save_state(out / "state.safetensors", model, ema, optimiser, progress)
    facts = {**progress, "seed": seed, "minutes": progress["elapsed_s"] / 60, "commit": started}
    if earlier:
        facts["earlier"] = earlier
    save_weights(ema, config, out / "weights.safetensors", facts, force=True)
    return ema.eval()


def _loop(
    config: RunConfig, scans: Sequence[Scan], out: Path, seed: int, model: MedIL, ema: MedIL,
    optimiser: torch.optim.Optimizer, progress: dict,
) -> None:  # fmt: skip
    settings, budget_s = config.train, 60 * config.train.minutes
    bar = tqdm(total=round(budget_s), initial=round(progress["elapsed_s"]), unit="s")
    log = (out / "log.jsonl").open("a")
    last = time.monotonic()
    while progress["elapsed_s"] < budget_s:
        share, number = progress["elapsed_s"] / budget_s, progress["step"]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, share, number)
        rng = np.random.default_rng([seed, number])
        step = draw_step(config, scans, share, rng)
        record = update(model, optimiser, step, settings, int(rng.integers(2**31)))
        if not math.isfinite(record["loss"]):
            raise InputError(f"the loss is {record['loss']} at step {number}; lower learning_rate.")
        average(ema, model, min(settings.ema_decay, (1 + number) / (10 + number)))
        now = time.monotonic()
        progress["elapsed_s"] += now - last
        progress["step"] += 1
        progress["voxels"] += step.target.numel()
        bar.update(min(round(progress["elapsed_s"]), bar.total) - bar.n)
        last = now
        if number % settings.log_every == 0:
            rates = [progress[k] / progress["elapsed_s"] for k in ("step", "voxels")]
            bar.set_postfix(
                step=number, loss=f"{record['loss']:.4f}", psnr=f"{record['psnr_db']:.1f}",
                gain=f"{record['gain_db']:+.2f}", steps_s=f"{rates[0]:.1f}",
                kvox_s=f"{rates[1] / 1e3:.0f}",
            )  # fmt: skip
            log.write(json.dumps({**progress, **record, "share": share}) + "\n")
            log.flush()
        if number % settings.save_every == settings.save_every - 1:
            save_state(out / "state.safetensors", model, ema, optimiser, progress)
    bar.close()
    log.close()


def draw_step(
    config: RunConfig, scans: Sequence[Scan], share: float, rng: np.random.Generator
) -> Step:
    """Stage one for the first `global_share` of the run, then stage two with a mix of it."""
    pitch_mm, settings = config.model.latent_spacing_mm, config.train
    if share < settings.global_share or rng.random() < settings.global_mix:
        return global_step(scans, pitch_mm, min(settings.patch_sides_mm), rng)
    patch_mm = settings.patch_sides_mm[int(rng.integers(len(settings.patch_sides_mm)))]
    return patch_step(
        scans, pitch_mm, patch_mm, settings.batch, settings.coarser_share, rng,
        settings.anchored_share,
    )  # fmt: skip


def learning_rate(settings: TrainConfig, share: float, step: int) -> float:
    """Linear warm-up, then half a cosine over the run."""
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    return settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def update(
    model: MedIL, optimiser: torch.optim.Optimizer, step: Step, settings: TrainConfig, seed: int
) -> dict[str, float]:
    """One optimiser step; gives back what the log wants to know."""
    device = model.haar.device
    x, target = step.x.to(device), step.target.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
        mean, log_var = model.encode_tensor(x, step.grid, step.latent_grid)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed)).to(mean)
        z = mean + noise * torch.exp(log_var / 2)
        estimate = model.decode_tensor(z, step.latent_grid, step.target_grid)
    loss = total_loss(estimate, target, mean, log_var, settings.loss_floor, settings.kl_weight)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimiser.step()
    return {"loss": loss.item(), **_reading(model, step, x, target, estimate.detach())}


@torch.no_grad()
def _reading(model: MedIL, step: Step, x: Tensor, target: Tensor, estimate: Tensor) -> dict:
    psnr_db = -10 * torch.log10((estimate - target).square().mean() + 1e-12).item()
    if not model.config.closed_form:
        return {"psnr_db": psnr_db, "gain_db": 0.0}
    z = model.project(x, step.grid, step.latent_grid)
    linear = model.render_linear(z, step.latent_grid, step.target_grid)
    linear_db = -10 * torch.log10((linear - target).square().mean() + 1e-12).item()
    return {"psnr_db": psnr_db, "gain_db": psnr_db - linear_db}


@torch.no_grad()
def average(ema: MedIL, model: MedIL, decay: float) -> None:
    """Move the averaged weights towards the model's."""
    for slow, fast in zip(ema.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


def commit() -> str:
    """The checkout's commit, with + when it has changes; empty outside a checkout."""
    call = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
