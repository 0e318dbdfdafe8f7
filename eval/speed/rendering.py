"""Time of the operators alone: literal LTE in its forms, cell-integrated LTE and its peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from eval.speed import ceilings, clock
from eval.speed.clock import Spread
from eval.speed.literal_forms import coefficients, forms
from eval.speed.naive import naive_lte
from eval.speed.renderers import Job, Scene, closed_form, literal, peers
from eval.speed.sizes import Sizes
from eval.speed.timing import CEILING, INTEGRATED, LITERAL, Timing, device_name
from eval.speed.work import integrated_work, literal_work
from medil.layers.operators import IntegratedLTE

NAIVE = "naive"
SHORT_S = 0.1  # what takes less is repeated within a round
SLOW = ("trilinear", "fixed-mlp", "liif")  # point by point; left out where the scene is large


def waiter(device: str) -> Callable[[], None]:
    """A function that waits for the device, to be called before the clock is read."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


@torch.inference_mode()
def measure(sizes: Sizes, device: str = "cpu") -> list[Timing]:
    """Both forms of LTE beside their rivals, and what the machine could do meanwhile."""
    scene, arms = Scene.drawn(sizes.cells_integrated, 32, device), peers(32, device)
    integrated = scene.job(arms["integrated"])
    timings, ahead = time_literal_forms(sizes, device, integrated)
    ahead = ahead.times((sizes.cells_integrated / sizes.cells) ** 3)  # voxel by voxel
    names = SLOW if sizes.cells_integrated <= sizes.cells else ()

    def seconds(jobs: Mapping[str, Job], rounds: int) -> dict[str, list[float]]:
        jobs = {"integrated": integrated, **jobs}
        return clock.interleaved(jobs, rounds, wait=waiter(device), at_least_s=SHORT_S)

    slow = seconds({name: scene.job(arms[name]) for name in names}, sizes.rounds_slow)
    fast = {"subpixel": scene.job(arms["subpixel"]), "closed form": closed_form(scene, device)}
    times = seconds({**fast, **ceilings.jobs(device)}, sizes.rounds_fast)
    work, n_voxels = (
        integrated_work(scene, cast(IntegratedLTE, arms["integrated"])),
        scene.voxels.n_voxels,
    )
    bytes_per_s = [ceilings.copied_bytes() / s for s in times["copy"]]
    flop_per_s = [ceilings.multiplied_flop(device) / s for s in times["multiply"]]
    values: dict[str, dict[str, float | Spread]] = {
        "integrated": {
            "ratio_to_naive": ahead,
            "ratio_to_subpixel": clock.ratios(times["integrated"], times["subpixel"]),
            "flop_per_voxel": work.flop,
            "bytes_per_voxel": work.moved,
            **ceilings.shares(work, times["integrated"], n_voxels, flop_per_s, bytes_per_s),
        },
        **{arm: {} for arm in fast},
        **{a: {"ratio_to_integrated": clock.ratios(slow[a], slow["integrated"])} for a in names},
    }
    for arm, more in values.items():
        spread = clock.spread((times if arm in times else slow)[arm])
        more = {"ns_per_voxel": spread.times(1e9 / n_voxels), **more}
        timings.append(
            Timing(arm, INTEGRATED, scene.sizes, more, n_voxels, device=device_name(device))
        )
    return timings + ceilings_of(bytes_per_s, flop_per_s, device)


def ceilings_of(
    bytes_per_s: Sequence[float], flop_per_s: Sequence[float], device: str
) -> list[Timing]:
    """The machine's two ceilings: how fast it copies and multiplies."""
    machine = {
        "copy": {"gb_per_s": clock.spread([b / 1e9 for b in bytes_per_s])},
        "multiply": {"gflop_per_s": clock.spread([f / 1e9 for f in flop_per_s])},
    }
    return [
        Timing(
            arm, CEILING, "float32", values, 1, device=device_name(device), subject="large tensors"
        )
        for arm, values in machine.items()
    ]


def time_literal_forms(sizes: Sizes, device: str, integrated: Job) -> tuple[list[Timing], Spread]:
    """Every form of literal LTE beside the naive one, and how far the integrated layer is ahead.

    Forms take features and give voxels. What the coefficient maps take of that is timed too,
    so that a second ratio can leave them out at both ends.
    """
    scene, layer = Scene.drawn(sizes.cells, 64, device), literal(64, device=device)
    ours = {name: scene.job(form) for name, form in forms(layer).items()}
    naive = scene.job(partial(naive_lte, layer))
    kept: dict[str, Tensor] = {}
    jobs: dict[str, Callable[[], Any]] = {
        name: _keeping(kept, name, job) for name, job in {NAIVE: naive, **ours}.items()
    }
    jobs |= {"maps": partial(coefficients, layer, scene.features), "integrated": integrated}
    times = clock.interleaved(jobs, sizes.rounds_slow, wait=waiter(device), at_least_s=SHORT_S)
    bare = {name: _less(times[name], times["maps"]) for name in (NAIVE, *ours)}
    apart = differences(kept[NAIVE], {name: kept[name] for name in ours})
    work, n_voxels = literal_work(scene, layer), scene.voxels.n_voxels
    timings = []
    for name in (NAIVE, *ours):
        values: dict[str, float | Spread] = {
            "ns_per_voxel": clock.spread(times[name]).times(1e9 / n_voxels),
            "flop_per_voxel": work.flop,
            "bytes_per_voxel": work.moved,
            **apart.get(name, {}),
        }
        if name != NAIVE:
            values["ratio_to_naive"] = clock.ratios(times[NAIVE], times[name])
            values["ratio_to_naive_maps_given"] = clock.ratios(bare[NAIVE], bare[name])
        timings.append(
            Timing(name, LITERAL, scene.sizes, values, n_voxels, device=device_name(device))
        )
    return timings, clock.ratios(times[NAIVE], times["integrated"])


def _less(seconds: list[float], others: list[float]) -> list[float]:
    """Round by round, what is left of the first; a noisy clock may leave little."""
    return [max(s - o, 1e-9) for s, o in zip(seconds, others, strict=True)]


def _keeping(kept: dict[str, Tensor], name: str, job: Job) -> Callable[[], None]:
    """The job, whose last rendering is kept to be compared."""

    def run() -> None:
        kept[name] = job()

    return run


def differences(
    truth: Tensor, renderings: Mapping[str, Tensor]
) -> dict[str, dict[str, float | Spread]]:
    """Largest difference of each rendering from the naive one, in standard deviations of that."""
    scale = truth.std()
    return {
        name: {"max_difference": float((rendering - truth).abs().max() / scale)}
        for name, rendering in renderings.items()
    }
