"""One training step: whole volumes at low resolution first, then native patches.

The data of a step depends on (seed, step) alone, its learning rate on the progress of the run.
`medil.training.autoencoder` makes a run of such steps; `update` works without it. `take_step` is
the optimiser step of every network that is trained here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medil.config import ModelConfig, RunConfig, Schedule, TrainConfig
from medil.errors import InputError
from medil.system.device import training_precision
from medil.training.losses import Adversary, total_loss
from medil.training.patches import Scan, Step, global_step, patch_step


def draw_step(
    config: RunConfig, scans: Sequence[Scan], progress: float, rng: np.random.Generator
) -> Step:
    """Draw the whole batch of a step, for all processes.

    Whole volumes fill the first `global_share` of the run, and `global_mix` of the steps after it.
    """
    pitch_mm, settings = config.model.latent_spacing_mm, config.train
    if progress < settings.global_share or rng.random() < settings.global_mix:
        return global_step(scans, pitch_mm, min(settings.patch_sides_mm), rng, settings.batch)
    side_mm = settings.patch_sides_mm[int(rng.integers(len(settings.patch_sides_mm)))]
    return patch_step(
        scans, pitch_mm, side_mm, settings.batch, settings.coarser_share, rng,
        settings.anchored_share, config.data.thick_share, config.data.thick_mm,
    )  # fmt: skip


def draw_noise(config: ModelConfig, step: Step, seed: int) -> Tensor:
    """Standard normal numbers for the latents of a whole batch: [B, C, d, h, w] on the CPU."""
    shape = (len(step.x), config.latent_channels, *step.latent_grid.shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def learning_rate(settings: Schedule, progress: float, step: int) -> float:
    """Linear warm-up, then half a cosine over the run."""
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    return settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def new_optimiser(model: nn.Module, settings: Schedule) -> torch.optim.AdamW:
    """AdamW over all weights."""
    return torch.optim.AdamW(
        model.parameters(), settings.learning_rate, (0.9, settings.beta2),
        weight_decay=settings.weight_decay,
    )  # fmt: skip


def update(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: Step,
    settings: TrainConfig,
    seed: int,
    fabric: Any,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    adversary: Adversary | None = None,
    measure: bool = True,
) -> dict[str, float]:
    """One optimiser step of an autoencoder; see `take_step`.

    Args:
        model: A `LatentAutoencoder`, set up by Fabric.
        optimiser: Optimiser of its weights.
        step: The whole batch, of all processes.
        settings: Settings of the losses and of gradient clipping.
        seed: Seed of the latents' noise.
        fabric: From `medil.training.launch.launch`.
        perceptual: A further term of estimate and truth, such as `Perceptual`.
        adversary: A loss that is a network; None where its weight is zero.
        measure: Report `gain_db` too, which costs a closed-form reconstruction.

    Returns:
        loss, gradient_norm, psnr_db (of the batch, peak 1) and, if measured, gain_db (over
        the closed form; 0 without one).

    Raises:
        InputError: The loss or its gradient is not finite; the weights were left alone.
    """
    noise = draw_noise(_bare(model).config, step, seed)
    seen: list[tuple[Step, Tensor]] = []

    def part_loss(index: int, count: int) -> Tensor:
        own, own_noise = step.part(index, count), noise.chunk(count)[index]
        loss, estimate = step_loss(model, own, own_noise, settings, perceptual, adversary)
        seen.append((own, estimate.detach()))
        return loss

    scan = step.name or "this scan"
    record = take_step(model, optimiser, settings, fabric, part_loss, scan)
    if adversary:
        fakes = torch.cat([estimate for _, estimate in seen])
        reals = torch.cat([own.target for own, _ in seen])
        if not math.isfinite(adversary.update(fakes, reals.to(fakes))):
            raise InputError(f"the adversary's loss is not finite on {scan}.")
    errors = torch.stack([_errors(_bare(model), *pair, measure) for pair in seen]).mean(0)
    mse, linear_mse = fabric.all_reduce(errors).tolist()
    record["psnr_db"] = _decibels(mse)
    return record | ({"gain_db": _decibels(mse) - _decibels(linear_mse)} if measure else {})


def take_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    settings: Schedule,
    fabric: Any,
    part_loss: Callable[[int, int], Tensor],
    scan: str = "",
) -> dict[str, float]:
    """One optimiser step on this process's share of a batch, in `accumulate` parts.

    The parts are equal. Where the loss is a mean over the examples, any number of processes and
    parts takes the step that one process would take with the whole batch.

    Args:
        model: Set up by Fabric.
        optimiser: Optimiser of its weights.
        settings: Give `accumulate` and `clip_norm`.
        fabric: From `medil.training.launch.launch`.
        part_loss: From index and count of a part of the whole batch to its loss, a scalar with
            a graph.
        scan: What the batch is of, for errors; left out of them when empty.

    Returns:
        loss (a mean over parts and processes) and gradient_norm.

    Raises:
        InputError: The loss or its gradient is not finite; the weights were left alone.
    """
    losses = []
    optimiser.zero_grad(set_to_none=True)
    for number, part in enumerate(parts(fabric, settings.accumulate), start=1):
        with fabric.no_backward_sync(model, enabled=number < settings.accumulate):
            loss = part_loss(*part)
            fabric.backward(loss / settings.accumulate)
        losses.append(loss.detach())
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm).item()
    value = fabric.all_reduce(torch.stack(losses).mean()).item()
    if not (math.isfinite(value) and math.isfinite(norm)):
        where, more = (f" on {scan}", ", or look at that scan") if scan else ("", "")
        raise InputError(
            f"the loss is {value:g} and its gradient {norm:g}{where}; lower learning_rate{more}."
        )
    optimiser.step()
    return {"loss": value, "gradient_norm": norm}


def parts(fabric: Any, accumulate: int) -> Iterator[tuple[int, int]]:
    """The parts of a batch that this process works on: (index, count)."""
    count = fabric.world_size * accumulate
    for index in range(accumulate):
        yield fabric.global_rank * accumulate + index, count


def _bare(model: nn.Module) -> Any:
    """The model without Fabric's wrapper."""
    return getattr(model, "module", model)


def step_loss(
    model: nn.Module,
    step: Step,
    noise: Tensor,
    settings: TrainConfig,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    adversary: Adversary | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss (a scalar with a graph) and estimate [B, 1, D, H, W] of one part of a batch."""
    device = _bare(model).device
    x, target = step.x.to(device), step.target.to(device)
    with training_precision(device, settings.bf16):
        estimate, mean, log_var = model(
            x, step.grid, step.latent_grid, step.target_grid, noise.to(device)
        )
    loss = total_loss(estimate, target, mean, log_var, settings)
    if perceptual:
        loss = loss + settings.perceptual_weight * perceptual(estimate, target)
    if adversary:
        loss = loss + settings.adversarial_weight * adversary.generator_loss(estimate)
    return loss, estimate


@torch.no_grad()
def _errors(bare: Any, step: Step, estimate: Tensor, measure: bool) -> Tensor:
    """[2]: mean squared error of the estimate, and of the closed form alone if measured."""
    target = step.target.to(estimate.device)
    mse = (estimate - target).square().mean()
    linear_mse = mse
    if measure and bare.config.closed_form:
        z = bare.splines.project(step.x.to(estimate.device), step.grid, step.latent_grid)
        linear = bare.splines.render(z, step.latent_grid, step.target_grid)
        linear_mse = (linear - target).square().mean()
    return torch.stack([mse, linear_mse])


def _decibels(mse: float) -> float:
    return -10 * math.log10(mse + 1e-12)


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    """Give a network the parameters of another one of the same shape; buffers stay its own."""
    values = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        parameter.data.copy_(values[name])


@torch.no_grad()
def average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the model's."""
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
