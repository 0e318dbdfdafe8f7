"""Ask weights on the way through stage two for whole volumes and for native blocks (PSNR)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from eval import metrics, rows
from eval.patch_vs_whole.measure import BLOCK_MM, scaled
from eval.patch_vs_whole.patches import rebuilt_by_patches, rebuilt_whole
from eval.robustness.heads import block_of, heads
from eval.runner import Task
from eval.stage_drift.training import MODEL, PATCH_MM, SIZES, VERSION, WAYS, snapshots
from eval.subjects import Scan, Subject, cut_box
from medil.errors import InputError
from medil.grid import Grid
from medil.model.base import LatentAutoencoder
from medil.model.weights import load_model, weights_sha256
from medil.training.patches import Step, global_step, prepare_scan

NAME = "stage_drift"
LOW, AT_ONCE, BY_PATCHES = "whole volume, low resolution", "block at once", "block by patches"
QUESTIONS = (LOW, AT_ONCE, BY_PATCHES)
UNITS = {"psnr": "dB"}
LOW_SEED = 0  # of the phase between large voxels and large cells
SUBJECTS = {"quick": 1, "gpu": 8, "paper": 23}


def condition(question: str, step: int, seed: int) -> str:
    """The condition in the rows, such as ``block at once | step 240 | seed 0``."""
    return f"{question} | step {step} | seed {seed}"


def factors(conditions: pd.Series) -> pd.DataFrame:
    """What was asked, after how many steps, and the seed."""
    split = conditions.str.split(" | ", expand=True, regex=False)
    split = split.set_axis(["asked", "step", "seed"], axis="columns")
    return split.assign(step=split["step"].str.removeprefix("step ").astype(int))


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a head; models that are missing are trained first.

    Raises:
        InputError: A release, which plays no part here.
    """
    if options.release != "tiny":
        raise InputError("this experiment trains models of its own; leave --release out.")
    profile = options.profile
    found = []
    for subject in heads(profile)[: SUBJECTS[profile]]:
        wanted = rows.identities((m, UNITS) for *_, m in measurements(subject, profile))
        found.append(Task(subject.name, wanted, partial(measure, subject, profile, provenance)))
    return found


def measurements(subject: Subject, profile: str) -> Iterator[tuple[Path, str, rows.Measurement]]:
    """All that is measured of a head: the weights' file, the question, the row."""
    size = SIZES[profile]
    about = rows.digest([VERSION, asdict(MODEL), asdict(size), BLOCK_MM, PATCH_MM, LOW_SEED])
    for way in WAYS:
        for seed in range(size.seeds):
            for step, path in snapshots(way, seed, size).items():
                weights = weights_sha256(load_model(path))
                for asked in QUESTIONS:
                    yield path, asked, rows.Measurement(
                        NAME, subject.name, way, condition(asked, step, seed), about,
                        subject.data_sha256, weights,
                    )  # fmt: skip


def measure(subject: Subject, profile: str, provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of one head."""
    scan = subject.load()
    block = cut_box(scan, block_of(scan, (BLOCK_MM,) * 3))
    answers: dict[Path, dict[str, tuple[float, Grid, float]]] = {}
    made = []
    for path, asked, about in measurements(subject, profile):
        if path not in answers:
            answers[path] = scores(load_model(path), scan, block)
        value, grid, took_s = answers[path][asked]
        numbers = MODEL.latent_channels * load_model(path).latent_grid(grid).n_voxels
        sampling = rows.Sampling.of(grid, grid, numbers)
        made += about.rows({"psnr": value}, UNITS, sampling, took_s, provenance)
    return made


@torch.inference_mode()
def scores(
    model: LatentAutoencoder, whole: Scan, block: Scan
) -> dict[str, tuple[float, Grid, float]]:
    """PSNR in dB, grid and seconds of each question."""
    found = {}
    started = time.perf_counter()
    step = low_resolution(whole)
    mean, _ = model.encode_tensor(step.x, step.grid, step.latent_grid)
    back = model.decode_tensor(mean, step.latent_grid, step.target_grid)
    truth, inside = step.target[0, 0], step.target[0, 0] > 0
    found[LOW] = psnr(truth, back[0, 0], inside.numpy()), step.grid, took(started)
    x, grid = scaled(block), block.volume.grid
    started = time.perf_counter()
    at_once = rebuilt_whole(model, x, grid)
    found[AT_ONCE] = psnr(x, at_once, block.mask), grid, took(started)
    started = time.perf_counter()
    by_patches = rebuilt_by_patches(model, x, grid, PATCH_MM)
    found[BY_PATCHES] = psnr(x, by_patches, block.mask), grid, took(started)
    return found


def low_resolution(scan: Scan) -> Step:
    """The whole scan as stage one sees it: large voxels, as many cells as a patch has."""
    native = prepare_scan(scan.volume)
    rng = np.random.default_rng(LOW_SEED)
    return global_step([native], MODEL.latent_spacing_mm, PATCH_MM, rng)


def psnr(truth: torch.Tensor, back: torch.Tensor, mask: np.ndarray) -> float:
    """PSNR in dB inside a mask, against the peak of the truth there."""
    values, other = truth.double().numpy(), back.double().numpy()
    return metrics.psnr(values, other, mask, metrics.peak_intensity(values, mask))


def took(started: float) -> float:
    """Seconds since then."""
    return time.perf_counter() - started
