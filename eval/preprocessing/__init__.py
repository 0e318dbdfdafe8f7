"""Does preparing a scan find what was put in: a known tilt, a known bias field, a known mask?

Held-out real scans are turned by known angles (their affine alone), brightened by known fields,
and, where they are stripped, asked for their brain once more.

    python -m eval.preprocessing --profile quick
"""

from eval.experiment import Experiment
from eval.preprocessing import measure, report

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Preparing scans",
    question="Do the steps of `medil preprocess` find a tilt, a field and a brain that are known?",
    tasks=measure.tasks,
    tables=report.tables,
    verdict=report.verdict,
)
