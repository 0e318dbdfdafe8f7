"""Jobs of the whole model: a training step, a scan encoded in tiles, a brain on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from eval.rows import spacing_text
from eval.speed import clock
from eval.speed.renderers import awake
from eval.speed.timing import GPU_BRAIN, TILES, TRAINING, Plan, Timing
from eval.subjects import brain_at_1_mm, cut
from medil.config import preset
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.tiles import cuts
from medil.model.weights import load_release, weights_sha256
from medil.system.device import find_device, network_precision, place_model
from medil.volume import robust_intensity

PATCH_MM = 40.0
OPERATORS = ("integrated", "literal")
THICK_CELLS = (1, 3, 5)  # latent cells of a tile
VOXEL_MM = 0.5  # of the brain on a GPU
THICK_VOX = 64  # of its slabs


def training(plan: Plan) -> list[Timing]:
    """A step with the release's operator and with the literal one, in turns.

    On one patch at 1 mm, in bfloat16 as training runs.
    """
    steps = {name: training_step(name, plan.device) for name in OPERATORS}
    times = clock.interleaved(steps, plan.rounds_training)
    timings = []
    for name, step in steps.items():
        values: dict[str, float | np.ndarray] = {"seconds": times[name]}
        if name != OPERATORS[0]:
            values["ratio_to_integrated"] = times[name] / times[OPERATORS[0]]
        if plan.device == "cuda":
            values["peak_cuda_mb"] = clock.peak_cuda_mb(step)
        timings.append(
            Timing(name, TRAINING, f"{PATCH_MM:g} mm patch at 1 mm, bf16", values,
                   round(PATCH_MM) ** 3, subject="made patch", spacing_in_mm="1")
        )  # fmt: skip
    return timings


def training_step(operator: str, device: str = "cpu") -> Callable[[], None]:
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


@torch.inference_mode()
def tiles(plan: Plan) -> list[Timing]:
    """Largest error of the latent's mean for odd tiles, in each channel's standard deviations.

    The judge is `encode_tensor`, which knows no tiles.
    """
    scan, description = brain_at_1_mm()
    sides_mm = [plan.tile_mm, plan.tile_mm - 3, plan.tile_mm + 2]  # no whole number of cells
    crop = cut(scan, scan.volume.grid.centre_mm, sides_mm).volume
    model = load_release(plan.release)
    intensity = robust_intensity(crop.data)
    x = intensity.forward(crop.data)[None, None]
    whole = model.encode_tensor(x, crop.grid, model.latent_grid(crop.grid))[0][0]  # [C, d, h, w]
    shape, timings = " x ".join(map(str, crop.grid.shape)), []
    for cells in THICK_CELLS:
        apart = (model.encode(crop, intensity, tile=cells).mean - whole).abs()
        error = float((apart.flatten(1).amax(dim=1) / whole.flatten(1).std(dim=1)).max())
        timings.append(
            Timing(plan.release, TILES, f"{shape}, tiles of {cells} cells", {"max_error": error},
                   crop.grid.n_voxels, subject="crop of a brain at 1 mm",
                   spacing_in_mm=spacing_text(crop.grid), spacing_out_mm="4",
                   weights_sha256=weights_sha256(model), config={"said": description})
        )  # fmt: skip
    return timings


@torch.inference_mode()
def brain(plan: Plan) -> list[Timing]:
    """A brain at 0.5 mm from its latent: device time, and seconds with slabs sent to the host.

    Networks run in bfloat16, then slabs that stay on the GPU, timed by CUDA events; seconds are
    of `Field.slabs`, whose slabs are copied to the host.
    """
    scan, _ = brain_at_1_mm()
    device = find_device(plan.device)
    model = place_model(load_release(plan.release), device)
    latent = model.encode(scan.volume)
    z = latent.mean[None].to(device)
    grid = scan.volume.grid.with_spacing(VOXEL_MM)

    def decode() -> None:
        with network_precision(z.device):
            features = model.decode_features(z)
        for start, count in cuts(grid.shape[0], THICK_VOX):
            slab = grid.crop((start, 0, 0), (count, *grid.shape[1:]))
            learned = model.render_features(features, latent.grid, slab)
            learned + model.splines.render(z, latent.grid, slab)

    def to_the_host() -> None:
        for _ in model.field(latent).slabs(grid):
            pass

    decode()
    values: dict[str, float | np.ndarray] = {
        "seconds": clock.interleaved({"host": to_the_host}, plan.rounds_slow)["host"],
        "device_ms": np.array([clock.device_ms(decode) for _ in range(plan.rounds_fast)]),
        "peak_cuda_mb": clock.peak_cuda_mb(decode),
    }
    return [
        Timing(plan.release, GPU_BRAIN, f"{VOXEL_MM:g} mm", values, grid.n_voxels,
               subject="brain at 1 mm", spacing_in_mm=spacing_text(scan.volume.grid),
               spacing_out_mm=f"{VOXEL_MM:g}", weights_sha256=weights_sha256(model))
    ]  # fmt: skip
