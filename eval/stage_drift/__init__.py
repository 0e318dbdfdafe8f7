"""Does training on patches forget the whole? Errors on whole volumes through stage two.

Small models learn whole volumes at low resolution, then patches, in three ways: patches alone,
patches with whole volumes mixed in, and patches too small to hold what a cell depends on. On the
way each is asked for whole volumes again, and for native blocks at once and patch by patch.

    python -m eval.stage_drift --profile quick
"""

from eval.experiment import Experiment
from eval.stage_drift import measure, report

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Drift in stage two",
    question="Does training on patches forget the whole?",
    tasks=measure.tasks,
    factors=measure.factors,
    latest_by=("config_hash",),
    tables=report.tables,
    verdict=report.verdict,
)
