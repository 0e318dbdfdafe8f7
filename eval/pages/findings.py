"""What the suite has settled, question by question, from recorded rows."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from eval import (
    ablation,
    downstream,
    extrapolation,
    false_gyri,
    generation,
    latent_consistency,
    reconstruction,
    stage_drift,
    thin_structures,
)
from eval.experiment import Experiment
from eval.tables import folded, listed, provenance

MOST = 3  # sentences of an answer


@dataclass(frozen=True)
class Finding:
    """One question, the experiment that answers it, and what is left open.

    Args:
        question: As the page asks it.
        experiment: Whose rows answer it.
        page: Name of the notebook that shows the experiment.
        remains: What is not settled.
        topics: Words that pick lines of the verdict; empty for the experiment's own answer.
    """

    question: str
    experiment: Experiment
    page: str
    remains: str
    topics: tuple[str, ...] = ()

    def answers(self, frame: pd.DataFrame) -> list[str]:
        """At most `MOST` lines from prepared rows."""
        if not self.topics:
            return self.experiment.answers(frame)[:MOST]
        lines = self.experiment.verdict(frame).splitlines() if self.experiment.verdict else []
        return [line for line in lines if any(topic in line for topic in self.topics)][:MOST]

    def markdown(self) -> str:
        """The answer, what remains, and where the rows come from."""
        frame = self.experiment.recorded()
        lines = [] if frame is None else self.experiment.marked(frame, self.answers)
        if frame is None or not lines:
            return self.experiment.nothing
        rows = f"{provenance(frame)}\n\nTo repeat it: `{self.experiment.command}`"
        told = f"{listed(lines)}\n\n**What remains.** {self.remains}"
        return f"{told}\n\n{folded('The rows behind it', rows)}"


FINDINGS = {
    "linear": Finding(
        "Does a learned latent beat the best linear code that keeps as many numbers?",
        reconstruction.EXPERIMENT, "03_reconstruction",
        "Thick slices, where the latent holds nearly as many numbers as there are voxels, and "
        "training on thousands of people, as the paper's.",
    ),
    "lte": Finding(
        "Is LTE better than trilinear interpolation?",
        ablation.EXPERIMENT, "05_ablation",
        "A third seed, and a budget at which every curve has levelled off.",
    ),
    "finer": Finding(
        "What is recovered below the training voxel size, and what is invented?",
        extrapolation.EXPERIMENT, "07_extrapolation",
        "A training set that holds sharp scans of 0.7 mm.",
    ),
    "latent": Finding(
        "Is the latent the same at 1 and 2 mm?",
        latent_consistency.EXPERIMENT, "06_latent_consistency",
        "Training with a loss that asks for it.",
    ),
    "airways": Finding(
        "Which airways survive?",
        thin_structures.EXPERIMENT, "14_thin_structures",
        "Real scans whose airways somebody has traced, and a release trained on lungs.",
        ("half of the lumens", "Real CT"),
    ),
    "gyri": Finding(
        "Are gyri invented on fine voxels, and what stops it?",
        false_gyri.EXPERIMENT, "15_false_gyri",
        "Real cortex at 0.5 mm, where the truth is known.",
        ("false bridges", "The guard", "The spread"),
    ),
    "condition": Finding(
        "Can a sampler be asked for an anatomy?",
        generation.EXPERIMENT, "12_conditional",
        "Anatomies of more people than a few, and disease.",
        ("At equal compute", "solved for in the map", "follow the requested volume"),
    ),
    "diversity": Finding(
        "Are sharper samples less diverse?",
        generation.EXPERIMENT, "13_diversity_and_sharpness",
        "Larger sets, and features of a network for brains.",
        ("Given the same maps", "among samples of one map"),
    ),
    "taught": Finding(
        "Can a segmenter learn from samples alone?",
        downstream.EXPERIMENT, "11_ldm",
        "Brains with labels drawn by hand.",
    ),
    "stages": Finding(
        "Does training on patches forget the whole?",
        stage_drift.EXPERIMENT, "04_two_stage_training",
        "Networks of the paper's size, and a discriminator.",
    ),
}  # fmt: skip
