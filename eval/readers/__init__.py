"""What do the readers make of damaged and odd files? Refused in one sentence, or read right.

Each case is a small made file whose right answer is known: a refusal, or these values at this
place. It is read in a process of its own, with a limit of time and of memory.

    python -m eval.readers --profile quick
"""

from eval.experiment import Experiment
from eval.readers import measure, report

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Damaged and odd files",
    question="Is every damaged or odd file refused in one sentence, or read right?",
    tasks=measure.tasks,
    factors=measure.factors,
    tables=report.tables,
    verdict=report.verdict,
    latest_by=(),
    workers=0,
)
