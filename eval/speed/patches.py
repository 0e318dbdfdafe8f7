"""Random patches from a store of chunks, beside reading whole .nii.gz files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.speed import clock
from eval.speed.model import PATCH_MM, training_step
from eval.speed.timing import STORE, Plan, Timing
from eval.subjects import brain_at_1_mm
from medil.config import preset
from medil.training.autoencoder import AHEAD
from medil.training.build_store import build_store
from medil.training.patches import Scan, Step, patch_step, random_block
from medil.training.prefetch import Prefetcher
from medil.training.store import Store
from medil.volume import Volume, load, save

VOLUMES = 3  # more than one, so that a patch is seldom next to the one before
PATCHES = 16  # a call
STEPS = 10  # between two looks at the clock


def measure(plan: Plan) -> list[Timing]:
    """Patches a second on one thread, and a training step's share of waiting for its patch."""
    with tempfile.TemporaryDirectory() as name:
        paths = written_volumes(Path(name))
        build_store(paths, Path(name) / "store")
        scans = Store(Path(name) / "store").scans()
        return _measure(paths, scans, plan)


def _measure(paths: Sequence[Path], scans: Sequence[Scan], plan: Plan) -> list[Timing]:
    numbers, pitch_mm = count(), preset("tiny").model.latent_spacing_mm

    def draw(number: int, _: object) -> Step:
        rng = np.random.default_rng([7, number])
        return patch_step(scans, pitch_mm, PATCH_MM, 1, 0.0, rng)

    jobs: dict[str, Callable[[], object]] = {
        "store": lambda: drawn(scans, next(numbers)),
        "whole files": lambda: from_file(paths[next(numbers) % len(paths)]),
    }
    times = clock.interleaved(jobs, plan.rounds_training, at_least_s=0.1)
    store, files = PATCHES / times["store"], 1 / times["whole files"]
    step = training_step("integrated")
    waiting = np.array([waiting_share(draw, step) for _ in range(plan.rounds_slow)])
    values = {
        "store": {
            "patches_per_s": store,
            "ratio_to_files": store / files,
            "waiting_share": waiting,
        },
        "whole files": {"patches_per_s": files},
    }
    sizes = f"{PATCH_MM:g} mm patches, {len(paths)} volumes at 1 mm"
    return [
        Timing(arm, STORE, sizes, quantities, round(PATCH_MM) ** 3,
               subject="noisy copies of a brain", spacing_in_mm="1")
        for arm, quantities in values.items()
    ]  # fmt: skip


def waiting_share(draw: Callable[[int, object], Step], step: Callable[[], None]) -> float:
    """Percent of `STEPS` steps that is spent waiting for what a thread draws ahead.

    The first patch is not counted: nothing could have been drawn before it.
    """
    with Prefetcher(draw, AHEAD) as ready:
        ready.take(0)
        begun, before_s = time.perf_counter(), ready.waited_s
        for number in range(1, STEPS + 1):
            ready.take(number)
            step()
        return 100 * (ready.waited_s - before_s) / (time.perf_counter() - begun)


def written_volumes(folder: Path) -> list[Path]:
    """Noisy copies of the brain at 1 mm, as .nii.gz files of 16 bits."""
    brain = brain_at_1_mm()[0].volume
    generator = torch.Generator().manual_seed(0)
    peak = float(brain.data.max())
    paths = []
    for number in range(VOLUMES):
        noise = torch.randn(brain.grid.shape, generator=generator) * (brain.data > 0)
        whole = (brain.data * 4000 / peak + 40 * noise).clamp(0, 4095).round()
        path = folder / f"copy_{number}.nii.gz"
        paths.append(save(Volume(whole, brain.grid), path))
    return paths


def drawn(scans: Sequence[Scan], seed: int) -> list[Tensor]:
    """Random blocks, each of a random volume."""
    rngs = [np.random.default_rng([seed, number]) for number in range(PATCHES)]
    return [random_block(scans[int(rng.integers(len(scans)))], PATCH_MM, rng) for rng in rngs]


def from_file(path: Path) -> Tensor:
    """The same from a file that is inflated whole; scaling it and finding the head come free."""
    volume = load(path)
    shape = np.array(volume.grid.shape)
    side = np.minimum(shape, (PATCH_MM / np.array(volume.grid.spacing_mm)).astype(int))
    start = (shape - side) // 2
    return volume.data[tuple(map(slice, start, start + side))].clone()
