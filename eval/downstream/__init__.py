"""Are samples good enough to train on? One small segmenter, three kinds of training volumes.

It is trained on labelled samples alone, on painted heads of the cohort, or on real brains with
the maps of the released segmenter: as many volumes, as many steps. Every segmenter is tested on
the same painted heads, whose maps are exact, and on real brains of people in no training set.

    python -m eval.downstream --profile quick
"""

from eval.downstream import measure, report, training
from eval.experiment import Experiment

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Training on samples",
    question="Does a segmenter that is trained on samples alone find tissues in real brains?",
    tasks=measure.tasks,
    factors=measure.factors,
    latest_by=("config_hash",),
    tables=report.tables,
    verdict=report.verdict,
    arm_title=training.TITLES.get,
)
