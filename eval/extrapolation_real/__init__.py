"""Models trained on real brains at 1 mm alone render 0.87 x 0.87 x 1 mm, where the scan exists.

    python -m eval.extrapolation_real --profile quick        # a toy, a folder of its own
    python -m eval.extrapolation_real --profile gpu          # the recorded comparison

The arms, the recipe and the pace are those of `eval.extrapolation`; the truth is a scan, with its
noise, and not a drawing. The command trains what is missing, one file of weights a run, and
neither trains nor scores again what is there.
"""

from eval.experiment import Experiment
from eval.extrapolation_real import measure, report

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Extrapolation, real truth",
    question="Is real detail finer than training kept, smoothed or invented?",
    tasks=measure.tasks,
    tables=report.tables,
    verdict=report.verdict,
    latest_by=("config_hash",),
    key=measure.KEY,
    options=measure.options,
    profiles=tuple(measure.PROFILES),
    quick_out=measure.QUICK_OUT,
    how="python -m eval.extrapolation_real --profile gpu",
)
