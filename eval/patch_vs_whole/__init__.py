"""Patches against the whole: how much a halo helps, and which seams and drift remain.

Held-out blocks are rebuilt by patches and at once, and the difference is recorded.

    python -m eval.patch_vs_whole --profile quick
"""

from eval.experiment import Experiment
from eval.patch_vs_whole import measure, report

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Patch against whole",
    question="Do tiles leave seams or drift?",
    tasks=measure.tasks,
    factors=measure.factors,
    tables=report.tables,
    verdict=report.verdict,
    answer=report.answer,
)
