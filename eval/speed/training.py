"""One training step, forward and backward: the release's operator beside the literal one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from eval.speed import clock
from eval.speed.renderers import awake
from eval.speed.rendering import waiter
from eval.speed.sizes import Sizes
from eval.speed.timing import TRAINING, Timing, device_name
from medil.config import preset
from medil.grid import Grid
from medil.model.autoencoder import MedIL

PATCH_MM = 40.0
OPERATORS = ("integrated", "literal")


def measure(sizes: Sizes, device: str = "cpu") -> list[Timing]:
    """Both steps in turns, on one patch at 1 mm, in bfloat16 as training runs."""
    steps = {name: step(name, device) for name in OPERATORS}
    times = clock.interleaved(steps, sizes.rounds_training, wait=waiter(device))
    voxels = round(PATCH_MM) ** 3
    timings = []
    for name in OPERATORS:
        values: dict[str, float | clock.Spread] = {"seconds": clock.spread(times[name])}
        if name != OPERATORS[0]:
            values["ratio_to_integrated"] = clock.ratios(times[name], times[OPERATORS[0]])
        if device == "cuda":
            values["peak_cuda_mb"] = peak_cuda_mb(steps[name])
        timings.append(
            Timing(name, TRAINING, f"{PATCH_MM:g} mm patch at 1 mm, bf16", values, voxels,
                  device=device_name(device), subject="made patch", spacing_in_mm="1")
        )  # fmt: skip
    return timings


def step(operator: str, device: str = "cpu") -> Callable[[], None]:
    """A job: encode a patch, render it, and send the squared error's gradient back."""
    config = replace(preset("tiny").model, operator=operator)
    model = MedIL(config)
    awake(model, device).train()
    grid = Grid.from_spacing((round(PATCH_MM),) * 3, 1.0)
    latent_grid = model.latent_grid(grid)
    x = torch.rand((1, 1, *grid.shape), device=device)
    noise = torch.randn((1, config.latent_channels, *latent_grid.shape), device=device)

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16):
            rendered, _, _ = model(x, grid, latent_grid, grid, noise)
            loss = (rendered.float() - x).square().mean()
        loss.backward()

    return run


def peak_cuda_mb(job: Callable[[], object]) -> float:
    """The most memory that tensors took on the GPU while the job ran."""
    torch.cuda.reset_peak_memory_stats()
    job()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e6
