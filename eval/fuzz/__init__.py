"""Does any file make a reader end in something else than a value or one sentence?

Every reader is given bytes that a coverage-guided fuzzer makes from good files: the readers of
images, of what MedIL writes itself, of manifests, tables and settings. It may return, or refuse in
one sentence; it may not raise anything else, hang, or take much memory.

    python -m eval.fuzz --profile quick
"""

from pathlib import Path

from eval.experiment import Experiment
from eval.fuzz import measure, report
from eval.fuzz.targets import TARGETS


def _options(parser) -> None:
    names = [target.name for target in TARGETS]
    parser.add_argument("--target", choices=names, help="only this reader (all)")
    parser.add_argument("--keep", type=Path, help="folder for inputs that were found")


EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Fuzzed readers",
    question="Does any file make a reader end in something else than a value or one sentence?",
    tasks=measure.tasks,
    factors=measure.factors,
    tables=report.tables,
    verdict=report.verdict,
    options=_options,
    latest_by=(),
    quick_out=Path("_build/rows"),
    workers=0,
)
