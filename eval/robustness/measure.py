"""Code damaged blocks and score the renderings against the input and against the clean block.

Two questions. Is the rendering true to the damaged input (*against the input*)? And is it closer
to the clean block than the input was (*against the clean block*)? *Nearer* answers the second in
dB: the error of the input over that of the rendering, which loses detail of its own. *Passed on*
leaves that loss out: how far the rendering of the damaged block lies from that of the clean one,
over how far the blocks themselves lie apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from eval import metrics, rows
from eval.coders import neighbours
from eval.coders.base import Coder, Renderer, codec_coders, loaded, release_coders
from eval.metrics import spectra
from eval.robustness import damage as damages
from eval.robustness.damage import (
    BLOCK_MM,
    DAMAGES,
    MOVE_MM,
    NEAR_MM,
    TURN_DEG,
    Damage,
    Damaged,
    apply,
)
from eval.robustness.heads import SPACING_MM, block_of, heads
from eval.runner import Task
from eval.subjects import Scan, Subject, cut_box

NAME = "robustness"
CODECS = ("dct_ball", "bspline", neighbours.NAME)
INPUT, CLEAN, RENDERED = "against the input", "against the clean block", "between renderings"
SCORES = {"psnr": "dB", "ssim": "1", "hfen": "1", "fsc_05_mm": "mm"}
UNITS = {**SCORES, "nearer": "dB", "change": "%", "passed_on": "1"}
DEFINITION = {
    "version": 2,
    "block_mm": BLOCK_MM,
    "spacing_mm": SPACING_MM,
    "near_mm": NEAR_MM,
    "move": (MOVE_MM, TURN_DEG),
    "peak_percentile": metrics.PEAK_PERCENTILE,
    "ssim_sigma_vox": metrics.SSIM_SIGMA_VOX,
    "hfen_sigma_mm": metrics.HFEN_SIGMA_MM,
}


def questions(damage: Damage) -> Iterator[tuple[str, str, str]]:
    """Every (region, compared with, metric) that one damage is scored by."""
    scored = [m for m in SCORES if m != "fsc_05_mm"]
    for region in damage.regions:
        everywhere = region == damages.BRAIN  # shells of frequency mean something there alone
        for other in (CLEAN, INPUT) if everywhere and damage.changes_input else (CLEAN,):
            yield from ((region, other, m) for m in (SCORES if everywhere else scored))
        if damage.kind != damages.NONE:
            yield region, RENDERED, "change"
        if everywhere and damage.changes_input:
            yield region, RENDERED, "passed_on"
            yield region, CLEAN, "nearer"


def condition(damage: Damage, region: str, other: str) -> str:
    """The condition in the rows: kind, strength, where, compared with what."""
    return " | ".join((damage.kind, damage.level, region, other))


def coders(release: str) -> list[Coder]:
    """The release, its splines alone, and the linear codecs of its size."""
    config = loaded(release).config
    codecs = codec_coders(config.latent_spacing_mm, config.latent_channels, CODECS)
    return [*release_coders(release), *codecs]


def factors(conditions: pd.Series) -> pd.DataFrame:
    """What `condition` joined: kind, level, where and against."""
    split = conditions.str.split(" | ", expand=True, regex=False)
    return split.set_axis(["kind", "level", "where", "against"], axis="columns")


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a head."""
    arms = coders(options.release)
    return [
        Task(subject.name, wanted(subject, arms), partial(measure, subject, arms, provenance))
        for subject in heads(options.profile)
    ]


def measurement(
    subject: Subject, arm: Coder, damage: Damage, region: str, other: str
) -> rows.Measurement:
    """One arm on one damaged head, scored in a region against another volume."""
    what = condition(damage, region, other)
    return arm.measurement(NAME, subject.name, subject.data_sha256, what, DEFINITION)


def wanted(subject: Subject, arms: list[Coder]) -> frozenset[rows.Identity]:
    """The identities of a head's rows."""
    return rows.identities(
        (measurement(subject, arm, damage, region, other), [metric])
        for arm in arms
        for damage in DAMAGES
        for region, other, metric in questions(damage)
    )


def measure(
    subject: Subject,
    arms: list[Coder],
    provenance: rows.Provenance,
    which: tuple[Damage, ...] = DAMAGES,
) -> list[rows.Row]:
    """Rows of one head, damage by damage; coders that share an encoding encode once."""
    scan = subject.load()
    clean = cut_box(scan, block_of(scan, BLOCK_MM))
    undamaged, renderer = clean.volume, Renderer()
    of_clean = {a.name: renderer.render(a, undamaged, undamaged.grid)[0] for a in arms}
    made = []
    for damage in which:
        damaged, renderer = apply(damage, scan, subject.data_sha256), Renderer()
        for arm in arms:
            data, sampling, time_s = renderer.render(arm, damaged.volume, damaged.volume.grid)
            scores = score(clean, damage, damaged, damaged.undone(data), of_clean[arm.name])
            for place, values in scores.items():
                about = measurement(subject, arm, damage, *place)
                made += about.rows(values, UNITS, sampling, time_s, provenance)
    return made


def score(
    clean: Scan, damage: Damage, damaged: Damaged, rendered: np.ndarray, rendered_clean: np.ndarray
) -> dict[tuple[str, str], dict[str, float]]:
    """Every score of one rendering: (region, compared with) to metric to value.

    Both renderings are on the clean scale; `rendered_clean` covers the whole clean block. The
    peak is the clean block's, so that PSNRs can be compared.
    """
    truth = clean.volume.data.double().numpy()[damaged.box]
    damaged_input = damaged.undone(damaged.volume.data.double().numpy())
    peak = metrics.peak_intensity(truth, clean.mask[damaged.box])
    spacing_mm = damaged.volume.grid.spacing_mm
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for region, other, metric in questions(damage):
        mask = damaged.regions[region]
        changed = rms(rendered - rendered_clean[damaged.box], mask)
        case = (truth if other == CLEAN else damaged_input, rendered, mask)
        if metric == "change":
            value = 100 * changed / peak
        elif metric == "passed_on":
            value = changed / rms(damaged_input - truth, mask)
        elif metric == "nearer":
            value = 20 * np.log10(rms(damaged_input - truth, mask) / rms(rendered - truth, mask))
        elif metric == "psnr":
            value = metrics.psnr(*case, peak)
        elif metric == "ssim":
            value = metrics.ssim(*case, peak)
        elif metric == "hfen":
            value = metrics.hfen(*case, spacing_mm)
        else:
            value = spectra.effective_resolution_mm(spectra.fsc(*case, spacing_mm), threshold=0.5)
        scores.setdefault((region, other), {})[metric] = float(value)
    return scores


def rms(difference: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square inside a mask."""
    return float(np.sqrt(np.mean(difference[mask] ** 2)))
