"""Do renderings on fine voxels show gyri that are not there, and what does it cost to prevent them?

    python -m eval.false_gyri --profile quick    # two blocks, minutes, a folder of its own
    python -m eval.false_gyri --profile gpu      # the recorded comparison

Synthetic heads and folded phantoms are scanned with noise, encoded, and rendered on voxels down
to 0.5 mm, where the truth is known. Bridges, holes and islands that the truth has not are counted,
with and without guards (`medil.model.guards`), and of the paper's operator and a fixed grid
(`eval.false_gyri.tries`), trained first. Maps of uncertainty are held against the error.
"""

from eval.experiment import Experiment
from eval.false_gyri import measure, report, verdict

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="False gyri",
    question="Does rendering finer than the scan invent gyri?",
    tasks=measure.tasks,
    tables=report.tables,
    select=report.select,
    verdict=verdict.verdict,
    arm_title=report.NAMES.get,
    profiles=tuple(measure.PROFILES),
    quick_out=measure.QUICK_OUT,
    how="python -m eval.false_gyri --profile gpu",
)
