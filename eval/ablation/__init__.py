"""Which operator learns best: arms x seeds x held-out subjects x voxel sizes, fairly paired.

    python -m eval.ablation --profile quick      # two arms, minutes, a folder of its own
    python -m eval.ablation --profile gpu        # the recorded comparison
    python -m eval.ablation --arms integrated literal --seeds 1 --steps 300 --out SOME/FOLDER

Each run trains one arm with one seed and scores two snapshots of it, at equal steps and at
equal computing time. Linear codecs with as many numbers are scored on the same blocks. Runs
that are recorded are skipped; an interrupt loses at most the run that it falls into.
"""

from eval.ablation import answer, measure, names, recipes, report, verdict
from eval.experiment import Experiment

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Ablation",
    question="Is LTE worth it?",
    tasks=measure.tasks,
    factors=measure.factors,
    select=recipes.select,
    tables=report.tables,
    verdict=verdict.verdict,
    arm_title=names.name_of,
    answer=answer.of_rows,
    summary=verdict.summary,
    options=measure.options,
    profiles=tuple(measure.PROFILES),
    quick_out=measure.QUICK_OUT,
    in_order=True,
    how="python -m eval.ablation --profile gpu",
)
