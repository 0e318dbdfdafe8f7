"""Time rendering and measure its memory, beside rivals and beside what the machine can do.

    python -m eval.speed

Everything is measured in this one run, in turns (A B C, A B C, ...), as medians with the
lowest and the highest round. Each run appends its rows, and ends with the newest of them.
With ``--device cuda`` the renderers run on a GPU instead.
"""

from eval.experiment import Experiment
from eval.speed import measure, report, verdict

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Speed and memory",
    question="What does rendering cost, and what limits it?",
    tasks=measure.tasks,
    factors=measure.factors,
    select=measure.newest_run,
    options=measure.options,
    tables=report.tables,
    verdict=verdict.verdict,
    arm_title=report.TITLES.get,
    answer=verdict.answer,
    summary=verdict.summary,
    workers=0,
)
