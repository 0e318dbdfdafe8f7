"""The one list of experiments, in the order in which pages show them."""

from __future__ import annotations

from eval import (
    ablation,
    downstream,
    evaluate,
    extrapolation,
    false_gyri,
    fuzz,
    generation,
    latent_consistency,
    machines,
    patch_vs_whole,
    preprocessing,
    readers,
    reconstruction,
    reliability,
    robustness,
    segmentation,
    speed,
    stage_drift,
    thin_structures,
    training,
)
from eval.experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    reconstruction.EXPERIMENT,
    ablation.EXPERIMENT,
    extrapolation.EXPERIMENT,
    thin_structures.EXPERIMENT,
    false_gyri.EXPERIMENT,
    latent_consistency.EXPERIMENT,
    robustness.EXPERIMENT,
    preprocessing.EXPERIMENT,
    machines.EXPERIMENT,
    patch_vs_whole.EXPERIMENT,
    stage_drift.EXPERIMENT,
    generation.EXPERIMENT,
    segmentation.EXPERIMENT,
    downstream.EXPERIMENT,
    speed.EXPERIMENT,
    training.EXPERIMENT,
    readers.EXPERIMENT,
    reliability.EXPERIMENT,
    fuzz.EXPERIMENT,
    evaluate.EXPERIMENT,
)
