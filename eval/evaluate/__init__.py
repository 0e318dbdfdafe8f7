"""The release, and other models, on your own scans: measured, recorded, made into a report.

Each scan is encoded once and rendered on its own grid and with voxels twice as long; then it
is averaged to half its resolution, encoded, and rendered on its own grid again. Linear codes
of the same size do the same. Results that the report already holds are not measured again.

    python -m eval.evaluate scans/ --out report
"""

from eval.evaluate import measure, report
from eval.experiment import Experiment

EXPERIMENT = Experiment(
    name=report.NAME,
    title="Your own scans",
    question="How does the release do on the scans of this report?",
    tasks=None,
    run=measure.run,
    options=measure.add_options,
    latest_by=(),
    tables=report.tables,
    verdict=report.verdict,
    how="medil evaluate SCANS -o report",
)
