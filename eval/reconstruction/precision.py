"""What bfloat16 costs: the same weights, the same latent, rendered in both precisions.

Every held-out real scan is encoded once in float32 and rendered on its own grid twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import pandas as pd

from eval import metrics, rows
from eval.coders.base import loaded, release_arm, timed, title_of
from eval.metrics.errors import psnr
from eval.runner import Task
from eval.subjects import Subject, same
from eval.tables import scan_name
from medil.model.weights import weights_sha256

NAME = "precision"  # experiment of the rows
EXACT, FAST = "float32", "bfloat16"  # their conditions
DEFINITION = {"version": 1, "metric": "psnr", "encoded in": EXACT}


def measurements(subject: Subject, release: str) -> list[rows.Measurement]:
    """What is measured of a subject: PSNR in each precision."""
    model = loaded(release)
    config = rows.digest([NAME, model.config.__dict__, DEFINITION])
    about = config, subject.data_sha256, weights_sha256(model)
    return [
        rows.Measurement(NAME, subject.name, release_arm(release), precision, *about)
        for precision in (EXACT, FAST)
    ]


def measure(subject: Subject, release: str, provenance: rows.Provenance) -> list[rows.Row]:
    """PSNR in the mask of a scan, rendered from one latent in each precision."""
    model, case = loaded(release), same(subject.load())
    latent = model.encode(case.volume)
    sampling = rows.Sampling.of(case.volume.grid, case.target, latent.n_numbers)
    peak, made = metrics.peak_intensity(case.truth, case.mask), []
    for measurement in measurements(subject, release):
        decode = partial(model.decode, latent, case.target, precision=measurement.condition)
        rendered, time_s = timed(decode)
        values = {"psnr": psnr(case.truth, rendered.data.double().numpy(), case.mask, peak)}
        made += measurement.rows(values, metrics.UNITS, sampling, time_s, provenance)
    return made


def tasks(
    people: Sequence[Subject],
    release: str,
    recorded: set[rows.Identity],
    provenance: rows.Provenance,
) -> list[Task]:
    """One task per real scan that is not recorded yet."""
    made = []
    for subject in people:
        wanted = rows.identities((m, ["psnr"]) for m in measurements(subject, release))
        if subject.kind and not wanted <= recorded:
            work = partial(measure, subject, release, provenance)
            made.append(Task(f"{subject.name}, {NAME}", wanted, work))
    return made


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """One line a model and scan: `float32` and `bfloat16` in dB, and `cost_db`, their difference.

    `frame` holds rows of `measure`, among others.
    """
    own = frame[frame["experiment"] == NAME]
    table = own.pivot_table(index=["arm", "subject"], columns="condition", values="value")
    table = table.reindex(columns=[EXACT, FAST]).reset_index()
    return table.assign(cost_db=table[EXACT] - table[FAST])


def precision_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Decibels that bfloat16 costs on every scan."""
    table = costs(frame)
    return pd.DataFrame(
        {
            "Model": [title_of(arm) for arm in table["arm"]],
            "Scan": [scan_name(subject) for subject in table["subject"]],
            "float32 (dB)": table[EXACT].map("{:.3f}".format),
            "bfloat16 (dB)": table[FAST].map("{:.3f}".format),
            "bfloat16 costs (dB)": table["cost_db"].map("{:.4f}".format),
            "n": 1,
        }
    )


def sentence(frame: pd.DataFrame) -> str:
    """Mean and largest cost over the scans; empty where none is recorded."""
    cost_db = costs(frame)["cost_db"].dropna()
    if cost_db.empty or not math.isfinite(cost_db.mean()):
        return ""
    return (
        f"Rendering in bfloat16 costs {cost_db.mean():.4f} dB on average, at most "
        f"{cost_db.max():.4f} dB (n = {len(cost_db)} renderings of real scans)."
    )
