"""What codes make of damaged scans: do they keep the damage, clean it, or make it worse?

Held-out blocks are damaged in stated amounts and coded; what comes of it is recorded.

    python -m eval.robustness --profile quick
"""

from eval.experiment import Experiment
from eval.robustness import measure, report

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Robustness",
    question="What do noise, motion and shading do to it?",
    tasks=measure.tasks,
    factors=measure.factors,
    tables=report.tables,
    verdict=report.verdict,
    answer=report.answer,
)
