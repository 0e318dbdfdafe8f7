"""Rows of the reconstruction with known numbers, for tests of tables and pages."""

from __future__ import annotations

from dataclasses import replace

from eval import rows
from eval.reconstruction.report import METRICS

BRAIN = "cross_sectional_patient07_T1_MNI"
DB = {  # made-up numbers of this test
    "medil": 30.0,
    "medil_splines": 26.0,
    "cubic": 24.0,
    "dct_cube": 27.5,
    "dct_ball": 28.25,
    "bspline": 27.0,
    "dct_best": 33.0,
}


def recorded(subject=BRAIN, condition="native -> native", gain_db=0.0, **changes):
    """Rows of every arm and metric for one subject and condition."""
    base = rows.Row(
        experiment="reconstruction",
        subject=subject,
        arm="",
        condition=condition,
        metric="",
        value=0.5,
        unit="1",
        spacing_in_mm="1",
        spacing_out_mm="1",
        numbers_kept=931_040,
        n_voxels=7_221_032,
        config_hash="c",
        data_sha256="d",
        weights_sha256="",
        time_s=1.0,
        recorded_at="2026-01-01T00:00:00.000000+00:00",
        provenance=rows.Provenance.now("quick"),
    )
    found = []
    for arm, db in DB.items():
        learned = arm.startswith("medil")
        weights = {"weights_sha256": "w" * 64} if learned else {}
        row = replace(base, arm=arm, **{**weights, **(changes if learned else {})})
        value = db + gain_db * (arm == "medil")
        found += [replace(row, metric=m, value=value if m == "psnr" else 0.5) for m in METRICS]
    return found
