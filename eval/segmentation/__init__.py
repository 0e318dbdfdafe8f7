"""The tissue segmenter: what it reaches where the map is exact, and what intensities add to it.

Painted heads and real brains of the test split are segmented, and the overlaps are recorded.

    python -m eval.segmentation --profile quick
"""

from eval.experiment import Experiment
from eval.segmentation import measure, report

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Segmentation",
    question="How well are tissues found, and what do intensities add to the network?",
    tasks=measure.tasks,
    factors=measure.factors,
    tables=report.tables,
    verdict=report.verdict,
)
