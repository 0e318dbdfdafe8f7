"""Models trained at 1 mm alone render finer voxels: is detail kept, smoothed, invented?

    python -m eval.extrapolation --profile quick              # minutes, a folder of its own
    python -m eval.extrapolation --profile gpu                # the recorded comparison
    python -m eval.extrapolation --profile gpu --trained-on brains     # that of real brains alone
    python -m eval.extrapolation --profile gpu --train-only

The command trains the arms on synthetic heads scanned at 1 mm, and again on real brains averaged
to 1 mm, one file of weights a run. Then every arm, the release and linear codecs answer the same
questions about blocks whose truth is known at finer voxels: synthetic heads and phantoms at 0.8,
0.7 and 0.5 mm, real brains at 0.87 x 0.87 x 1 mm, where the scan is the truth. Arms that were
trained on brains answer about brains alone. It neither trains nor scores again what is there.
"""

from eval.experiment import Experiment
from eval.extrapolation import measure, report, verdict

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Extrapolation",
    question="Is detail finer than training recovered or invented?",
    tasks=measure.tasks,
    tables=report.tables,
    verdict=verdict.verdict,
    arm_title=report.name_of,
    answer=verdict.answer,
    latest_by=("config_hash",),
    key=measure.KEY,
    options=measure.options,
    profiles=tuple(measure.PROFILES),
    quick_out=measure.QUICK_OUT,
    how="python -m eval.extrapolation --profile gpu",
)
