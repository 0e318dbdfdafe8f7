"""Which airways survive: of each radius, how many lumens does a code still show?

    python -m eval.thin_structures --profile quick               # minutes, a folder of its own
    python -m eval.thin_structures --profile gpu                 # the recorded comparison
    python -m eval.thin_structures --profile gpu --train-only --tries control focal

Chests with a known airway tree are scanned on native grids, and every arm rebuilds them; what the
rebuilt scans show of each airway is measured by its radius. Real chest CT, where it is on this
computer, is scored in the windows that radiologists look in. The tries change one thing of a small
autoencoder at equal computing time. The command neither trains nor scores again what is there.
"""

from eval.experiment import Experiment
from eval.thin_structures import measure, report, verdict

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Thin structures",
    question="Which airways survive, by their radius?",
    tasks=measure.tasks,
    factors=measure.factors,
    tables=report.tables,
    verdict=verdict.verdict,
    arm_title=report.name_of,
    latest_by=(),  # chests and real scans of one arm are scored by definitions of their own
    key=measure.KEY,
    options=measure.options,
    profiles=tuple(measure.PROFILES),
    quick_out=measure.QUICK_OUT,
    how="python -m eval.thin_structures --profile gpu",
)
