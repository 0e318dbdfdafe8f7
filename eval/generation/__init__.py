"""How good are sampled heads, do they follow requests, and how does blur affect diversity?

Sets of samples are compared with heads drawn on label maps that no training used, beside three
references: another such set, the training heads, and held-out heads through the autoencoder
alone. All volumes have voxels of 2 mm. The requested attributes are measured on the images of
samples, by rulers tested first on heads of known truth. Missing samplers are trained.

    python -m eval.generation --profile quick
"""

from eval.experiment import Experiment
from eval.generation import measure, report, verdict

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Sampling",
    question="Are sampled heads like real ones, varied, and as requested?",
    tasks=measure.tasks,
    factors=measure.factors,
    select=measure.largest_profile,
    options=measure.options,
    tables=report.tables,
    verdict=verdict.verdict,
    arm_title=report.NAMES.get,
)
