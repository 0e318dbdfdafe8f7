"""How good are sampled heads, do they follow requests, and what does blur do to diversity?

Sets of samples are compared with heads drawn on label maps that no training used, beside three
references: another such set, the training heads, and held-out heads through the autoencoder
alone. All volumes have voxels of 2 mm. What was requested of a sample is measured on its image,
by rulers that are tested first. Samplers that are missing are trained.

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
)
