"""From rows of three made-up heads to tables and words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from eval import bars, rows, rows_file
from eval.latent_consistency import EXPERIMENT, pictures, report
from eval.latent_consistency import conditions as names
from eval.latent_consistency.verdict import verdict

PROVENANCE = rows.Provenance.now("quick")
UNIT = 2.0  # between heads, in latent units: distances are these numbers over it
SAME, SMOOTHER, WHOLE = (f"{content} -> " for content in (names.SAME, names.SMOOTHER, names.WHOLE))
RMS = {  # made-up numbers of this test, for 3 heads
    **{f"{c}{names.ANOTHER} | {p}": (1.8, 2.0, 2.2)
       for c in (SAME, SMOOTHER, WHOLE) for p in ("all", "coarse")},
    f"{SAME}shifted | all": (0.02, 0.04, 0.06),
    f"{SAME}{names.TURNED} | all": (0.12, 0.14, 0.16),
    f"{SAME}{names.TRANSPORTED} | all": (0.08, 0.08, 0.08),
    f"{SMOOTHER}2 mm | all": (0.1, 0.2, 0.3),
    f"{WHOLE}2 mm | all": (0.8, 0.9, 1.0),
    f"{WHOLE}2 mm | coarse": (0.2, 0.2, 0.2),
    f"{WHOLE}{names.off(2.0)} | all": (1.0, 1.1, 1.2),
    f"{WHOLE}{names.moved(2.0)} | all": (1.0, 1.1, 1.2),
    f"{WHOLE}{names.truly(2.0)} | all": (0.1, 0.1, 0.1),
    f"{WHOLE}{names.turned_by(2.0)} | all": (0.5, 0.5, 0.5),
}  # fmt: skip
PSNR = {  # dB below 30, 31 and 32
    names.rendered(): 0.0,
    names.rendered(names.COARSE_OF_2_MM): 0.5,
    names.rendered(names.off(2.0)): 8.0,
    names.rendered(names.TRANSPORTED): 1.0,
    names.rendered(names.turned_by(2.0)): 4.0,
    names.rendered(names.truly(2.0)): 0.25,
}


def recorded(weights: str = "w" * 64, day: int = 1, **values) -> list[rows.Row]:
    """Rows of three heads, with other distances where told."""
    base = rows.Row(
        experiment=names.NAME, subject="", arm="medil", condition="", metric="",
        value=0.0, unit="1", spacing_in_mm="1", spacing_out_mm="4", numbers_kept=8, n_voxels=64,
        config_hash="c", data_sha256="d", weights_sha256=weights, time_s=1.0,
        recorded_at=f"2026-01-{day:02d}T00:00:00.000000+00:00", provenance=PROVENANCE,
    )  # fmt: skip
    found = []
    for k, name in enumerate("xyz"):
        row = replace(base, subject=name)
        for condition, rms in (RMS | values).items():
            row = replace(row, condition=condition)
            for metric, value in zip(names.DIFFERENCES, (rms[k], rms[k], 0.9), strict=True):
                found.append(replace(row, metric=metric, value=value))
        for condition, lost in PSNR.items():
            db = 30.0 + k - lost
            found.append(replace(row, condition=condition, metric="psnr", unit="dB", value=db))
    return found


@pytest.fixture
def frame(tmp_path) -> pd.DataFrame:
    return frame_of(recorded(), tmp_path / "rows.jsonl")


def frame_of(found: list[rows.Row], path) -> pd.DataFrame:
    rows_file.append_rows(path, found)
    return EXPERIMENT.prepare(rows_file.read_rows(path))


def test_distances_are_fractions_of_those_between_heads(frame):
    found = report.distances(frame).set_index(["content", "scanned", "channels", "subject"])
    one = found.loc[(names.WHOLE, "2 mm", "all", "z")]
    assert one["distance"] == pytest.approx(1.0 / UNIT) and one["latent_l2"] == 1.0
    line = report.consistency_table(frame).set_index(["Question", "Scanned", "Channels"])
    other = line.loc[("another resolution", names.ANOTHER, "all")]
    assert other["Distance"] == pytest.approx(1) and other["n"] == 3
    details = line.loc[("another resolution", "2 mm", "all")]
    assert details["Distance"] == pytest.approx(0.45) and np.isnan(details["Bar"])
    assert details["Low"] <= 0.45 <= details["High"] and details["Within"] == ""


def test_what_a_grid_costs_is_taken_off_head_by_head(frame):
    line = report.information_table(frame).iloc[0]
    assert (line["Scanned"], line["n"]) == ("2 mm", 3)
    assert line["Grid alone"] == pytest.approx(0.1)
    assert line["With resolution"] == pytest.approx(0.45)
    assert line[["Difference", "Low", "High"]].tolist() == pytest.approx([0.35, 0.35, 0.35])


def test_decibels_are_lost_against_the_latent_that_went_the_same_way(frame):
    table = report.header_table(frame).set_index("Kind")
    assert table.loc["header off", "Lost (dB)"] == pytest.approx(8.0)
    assert table.loc["header turned", "Lost (dB)"] == pytest.approx(3.0)  # of what came back
    assert table.loc["truly scanned there", "Lost (dB)"] == pytest.approx(0.25)
    assert np.isnan(table.loc["head moved", "Lost (dB)"])
    assert table.loc["head moved", "Distance"] == pytest.approx(0.55)
    assert report.coarse_table(frame)["Lost (dB)"].tolist() == pytest.approx([0.5])


def test_the_verdict_gives_each_number_with_n_and_interval(frame):
    assert verdict(frame).splitlines() == [
        "Distances between latents, divided by the mean distance between n = 3 held-out "
        "heads [95 % interval over heads].",
        "Same content, another grid, all channels: shifted 0.020 [0.010, 0.030]; "
        "turned 12 degrees 0.070 [0.060, 0.080].",
        "Another resolution, coarse channel: 2 mm 0.100 [0.100, 0.100].",
        "For comparison, resampling a latent onto its own cells alone changes it by "
        "0.040 [0.040, 0.040].",
        "From 1 mm to 2 mm the latent moves 0.450 of the way to another head (all channels). "
        "Where both grids hold the whole content, the grid alone moves it by 0.100; the rest, "
        "0.350 [0.350, 0.350], is due "
        "to the resolution (n = 3).",
        "A header that is off by 2 mm changes the latent by 0.550 [0.500, 0.600] and costs "
        "8.00 dB [8.00, 8.00] of PSNR at the true place (n = 3).",
        "A scan whose voxels really lie 2 mm off changes the latent by 0.050 [0.050, 0.050] and "
        "costs 0.25 dB [0.25, 0.25] of PSNR at the true place (n = 3).",
        "Taking the coarse channel from a 2 mm scan costs 0.50 dB [0.50, 0.50] of PSNR at 1 mm "
        "(n = 3).",
    ]


@pytest.mark.parametrize(
    ("smoother", "words"),
    [((0.5, 0.9, 1.3), "cannot be distinguished from zero"), ((1.2, 1.4, 1.5), "is below zero")],
)
def test_the_words_follow_the_interval(tmp_path, smoother, words):
    found = recorded(**{f"{SMOOTHER}2 mm | all": smoother})
    assert words in verdict(frame_of(found, tmp_path / "rows.jsonl"))


def test_a_newer_release_takes_the_older_one_s_place(tmp_path):
    worse = {f"{WHOLE}2 mm | coarse": (0.4, 0.6, 0.8)}
    frame = frame_of(recorded() + recorded("v" * 64, 2, **worse), tmp_path / "rows.jsonl")
    table = report.consistency_table(frame).set_index(["Question", "Scanned", "Channels"])
    line = table.loc[("another resolution", "2 mm", "coarse")]
    assert line["Distance"] == pytest.approx(0.3) and line["Within"] == "no"
    assert set(table["n"]) == {3}


def test_bars_are_for_maintainers_and_their_own_command(frame):
    told = dict(line.split(": distance: ") for line in bars.of_latents(frame)[:-1])
    assert told["same content, another grid, shifted"] == "0.02, at most 0.05, met"
    assert told["same content, another grid, turned 12 degrees"] == "0.07, at most 0.05, not met"
    assert bars.of_latents(frame)[-1].endswith("lost (dB): 0.5, at most 0.3, not met")
    assert "bar" not in verdict(frame)


def test_rows_of_an_older_definition_make_no_table(tmp_path):
    older = [replace(r, metric="latent_distance") for r in recorded() if r.metric == "latent_rms"]
    rows_file.append_rows(tmp_path / "latent_consistency.jsonl", older)
    assert EXPERIMENT.write(tmp_path, tmp_path / "tables") == []


def test_decibels_are_written_with_four_decimals(tmp_path):
    rows_file.append_rows(tmp_path / "latent_consistency.jsonl", recorded())
    EXPERIMENT.write(tmp_path, tmp_path / "tables")
    text = (tmp_path / "tables/latent_consistency_db.csv").read_text()
    assert text.splitlines()[1] == "MedIL tiny,31.0000,30.5000,0.5000,0.5000,0.5000,3"


def test_one_axis_shows_every_question_and_the_yardstick(frame):
    header = report.header_table(frame)
    lines = pictures.lines_on_one_axis(report.consistency_table(frame), header, "MedIL tiny")
    assert names.ANOTHER not in set(lines["Scanned"])
    assert "header off by 2 mm" in set(lines["Scanned"])
    ax = pictures.on_one_axis(lines).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(lines["Scanned"])
    headings = [text.get_text() for text in ax.texts[:-1]]
    assert headings == list(dict.fromkeys(lines["Group"]))  # one over the lines of each question
    assert ax.lines[0].get_xdata() == [1, 1]


def test_header_curves_show_means_and_a_live_head_beside_them(frame):
    live = {"off_mm": [0.0, 2.0], "distance": [0.0, 0.5], "lost_db": [0.0, 7.0]}
    left, right = pictures.header_curves(report.header_table(frame), "MedIL tiny", live).axes
    drawn = {line.get_label(): line.get_ydata() for line in right.lines}
    np.testing.assert_allclose(drawn["header off, voxels in place"], [8.0])
    np.testing.assert_allclose(drawn["live, one head"], live["lost_db"])
    assert len(left.lines) > len(right.lines)  # a head that moved has no rendering of its own
    alone = pictures.header_curves(None, "MedIL tiny", live).axes[1]
    assert [line.get_label() for line in alone.lines] == ["live, one head"]


def test_the_command_of_bars_prints_each_recorded_experiment_and_no_other(
    tmp_path, monkeypatch, capsys
):
    rows_file.append_rows(tmp_path / f"{names.NAME}.jsonl", recorded())
    asked = ["bars", "--rows", str(tmp_path)]
    monkeypatch.setattr("sys.argv", asked)
    bars.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines == bars.of_latents(EXPERIMENT.recorded(tmp_path))
    monkeypatch.setattr("sys.argv", asked[:1])
    bars.main()
    named = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert "Ventricles, requested and measured" in named
    assert "Above the best linear codec (dB)" in named and "Bar" in named[0]


def test_a_bar_at_its_limit_is_met_from_either_side():
    assert bars.judged("x", 2.0, 2.0) == "x: 2, at least 2, met"
    assert bars.judged("x", 2.0, 2.0, most=True) == "x: 2, at most 2, met"
    assert bars.judged("x", 1.99, 2.0).endswith("not met")
    assert bars.judged("x", float("nan"), 2.0).endswith("not met")
