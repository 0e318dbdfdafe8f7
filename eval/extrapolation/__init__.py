"""Models trained at 1 mm alone render 0.8, 0.7 and 0.5 mm: is detail kept, smoothed, invented?

    python -m eval.extrapolation --profile quick              # minutes, a folder of its own
    python -m eval.extrapolation --profile gpu                # the recorded comparison
    python -m eval.extrapolation --profile gpu --train-only

The command trains the arms on heads scanned at 1 mm and on nothing else, one file of weights a
run. Then every arm, the release and linear codecs answer the same questions about blocks whose
truth is known at every voxel size. It neither trains nor scores again what is there.
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
    latest_by=("config_hash",),
    key=measure.KEY,
    options=measure.options,
    profiles=tuple(measure.PROFILES),
    quick_out=measure.QUICK_OUT,
    how="python -m eval.extrapolation --profile gpu",
)
