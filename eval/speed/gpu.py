"""A whole brain at 0.5 mm on a GPU: device time of the decoder, from latent to voxels."""

from __future__ import annotations

from typing import Any

import torch

from eval.rows import spacing_text
from eval.speed import clock
from eval.speed.sizes import Sizes
from eval.speed.timing import GPU_BRAIN, Timing, device_name
from eval.speed.training import peak_cuda_mb
from eval.subjects import brain_at_1_mm
from medil.model.tiles import cuts
from medil.model.weights import load_release
from medil.system.device import find_device, network_precision, place_model

VOXEL_MM = 0.5
THICK = 64  # voxels of a slab


@torch.inference_mode()
def measure(sizes: Sizes, release: str) -> list[Timing]:
    """Networks in bfloat16, then slabs that stay on the GPU; by CUDA events.

    Seconds are of `Field.slabs`, whose slabs are copied to the host.
    """
    scan, _ = brain_at_1_mm()
    model = place_model(load_release(release), find_device("cuda"))
    latent = model.encode(scan.volume)
    z = latent.mean[None].to("cuda")
    grid = scan.volume.grid.with_spacing(VOXEL_MM)

    def decode() -> None:
        with network_precision(z.device):
            features = model.decode_features(z)
        for start, count in cuts(grid.shape[0], THICK):
            slab = grid.crop((start, 0, 0), (count, *grid.shape[1:]))
            learned = model.render_features(features, latent.grid, slab)
            learned + model.splines.render(z, latent.grid, slab)

    def to_the_host() -> None:
        for _ in model.field(latent).slabs(grid):
            pass

    decode()
    hosted = clock.interleaved({"host": to_the_host}, sizes.rounds_slow)["host"]
    values: dict[str, Any] = {
        "seconds": clock.spread(hosted),
        "device_ms": clock.spread([device_ms(decode) for _ in range(sizes.rounds_fast)]),
        "peak_cuda_mb": peak_cuda_mb(decode),
    }
    return [
        Timing(release, GPU_BRAIN, f"{VOXEL_MM:g} mm", values, grid.n_voxels,
              device=device_name("cuda"), subject="brain at 1 mm",
              spacing_in_mm=spacing_text(scan.volume.grid), spacing_out_mm=f"{VOXEL_MM:g}",
              weights_sha256=model.weights_id)
    ]  # fmt: skip


def device_ms(job) -> float:
    """Milliseconds between two CUDA events around a job."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    job()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)
