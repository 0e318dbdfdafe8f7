"""Time of the operators alone: literal LTE in its forms, cell-integrated LTE and its peers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from eval.speed import ceilings, clock
from eval.speed.naive import naive_lte
from eval.speed.renderers import Job, Renderer, Scene, closed_form, forms, literal, peers
from eval.speed.timing import CEILING, INTEGRATED, LITERAL, Plan, Timing
from medil.layers.operators import IntegratedLTE

NAIVE = "naive"
SHORT_S = 0.1  # what takes less is repeated within a round
FAST = ("integrated", "subpixel", "closed form")
SLOW = ("trilinear", "fixed-mlp", "liif")  # point by point; left out where the scene is large


@torch.inference_mode()
def measure(plan: Plan) -> list[Timing]:
    """Both forms of LTE beside their rivals, and what the machine could do meanwhile."""
    scene, operators = Scene.drawn(plan.cells_integrated, 32, plan.device), peers(32, plan.device)
    jobs: dict[str, Job] = {name: scene.job(operator) for name, operator in operators.items()}
    jobs["closed form"] = closed_form(scene, plan.device)
    timings, ahead = literal_forms(plan, jobs["integrated"])
    slow = SLOW if plan.cells_integrated <= plan.cells else ()
    slow_jobs = {name: jobs[name] for name in ("integrated", *slow)}
    slow_s = clock.interleaved(slow_jobs, plan.rounds_slow, at_least_s=SHORT_S)
    fast_jobs = {name: jobs[name] for name in FAST} | ceilings.jobs(plan.device)
    fast_s = clock.interleaved(fast_jobs, plan.rounds_fast, at_least_s=SHORT_S)
    flop_per_s, bytes_per_s = ceilings.rates(fast_s, plan.device)

    n_voxels = scene.voxels.n_voxels
    work = ceilings.integrated_work(scene, cast(IntegratedLTE, operators["integrated"]))
    ns_per_voxel = {name: s * 1e9 / n_voxels for name, s in {**slow_s, **fast_s}.items()}
    values: dict[str, dict[str, float | np.ndarray]] = {
        "integrated": {
            "ratio_to_naive": ahead * (plan.cells_integrated / plan.cells) ** 3,  # voxel by voxel
            "ratio_to_subpixel": fast_s["integrated"] / fast_s["subpixel"],
            "flop_per_voxel": work[0],
            "bytes_per_voxel": work[1],
            **ceilings.shares(work, ns_per_voxel["integrated"], flop_per_s, bytes_per_s),
        },
        **{name: {"ratio_to_integrated": slow_s[name] / slow_s["integrated"]} for name in slow},
    }
    for name in (*FAST, *slow):
        quantities = {"ns_per_voxel": ns_per_voxel[name], **values.get(name, {})}
        timings.append(Timing(name, INTEGRATED, scene.sizes, quantities, n_voxels))
    speeds = {
        "copy": {"gb_per_s": bytes_per_s / 1e9},
        "multiply": {"gflop_per_s": flop_per_s / 1e9},
    }
    return timings + [
        Timing(name, CEILING, "float32", speed, 1, subject="large tensors")
        for name, speed in speeds.items()
    ]


def literal_forms(plan: Plan, integrated: Job) -> tuple[list[Timing], np.ndarray]:
    """Every form of literal LTE beside the naive one, and how far the integrated layer is ahead.

    Forms take features and give voxels. Differences are the largest from the naive rendering,
    in its standard deviations.
    """
    scene, layer = Scene.drawn(plan.cells, 64, plan.device), literal(64, device=plan.device)
    rendered: dict[str, Tensor] = {}

    def kept(name: str, job: Job) -> Callable[[], Any]:
        return lambda: rendered.update({name: job()})

    renderers: dict[str, Renderer] = {NAIVE: partial(naive_lte, layer), **forms(layer)}
    jobs = {name: kept(name, scene.job(renderer)) for name, renderer in renderers.items()}
    jobs["integrated"] = integrated
    times = clock.interleaved(jobs, plan.rounds_slow, at_least_s=SHORT_S)
    flop, moved = ceilings.literal_work(scene, layer)
    truth, n_voxels, timings = rendered[NAIVE], scene.voxels.n_voxels, []
    for name in renderers:
        values: dict[str, float | np.ndarray] = {
            "ns_per_voxel": times[name] * 1e9 / n_voxels,
            "flop_per_voxel": flop,
            "bytes_per_voxel": moved,
        }
        if name != NAIVE:
            values["max_difference"] = float((rendered[name] - truth).abs().max() / truth.std())
            values["ratio_to_naive"] = times[NAIVE] / times[name]
        timings.append(Timing(name, LITERAL, scene.sizes, values, n_voxels))
    return timings, times[NAIVE] / times["integrated"]
