"""Tables come from rows alone, and say what the rows say."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from eval import report, rows
from eval.reconstruction import report as reconstruction_report
from medil.errors import InputError

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
        found += [
            replace(row, metric=m, value=value if m == "psnr" else 0.5)
            for m in reconstruction_report.METRICS
        ]
    return found


@pytest.fixture
def written(tmp_path):
    """Tables of two subjects, one of which the model loses on."""
    path = tmp_path / "reconstruction.jsonl"
    rows.append_rows(path, recorded())
    rows.append_rows(path, recorded(condition="native -> 2 mm"))
    rows.append_rows(path, recorded("head", gain_db=-3.0))
    report.write(path, tmp_path / "tables")
    return tmp_path / "tables"


def test_reconstruction_table_is_sorted_and_differences_are_to_the_best_linear_codec(written):
    table = pd.read_csv(written / "reconstruction.csv")
    assert list(table["PSNR (dB)"]) == sorted(DB.values(), reverse=True)
    gains = dict(zip(table["Code"], table[reconstruction_report.GAIN], strict=True))
    assert gains["MedIL"] == 1.75  # 30 - 28.25: the ball, and not the oracle, is the rival
    assert gains["DCT, lowest ball"] == 0.0
    assert gains["DCT, largest (oracle)"] == 4.75
    assert len(table) == len(DB)  # of the 1 mm brain alone
    assert set(table["Numbers per voxel"]) == {round(931_040 / 7_221_032, 3)}
    assert {"PSNR (dB)", "SSIM", "HFEN", "Gradient error", "Numbers per voxel", "n"} <= set(table)


def test_grids_table_has_every_subject_condition_and_arm(written):
    table = pd.read_csv(written / "reconstruction_grids.csv")
    assert len(table) == 3 * len(DB)
    lost = table[(table["Scan"] == "head") & (table["Code"] == "MedIL")]
    assert lost[reconstruction_report.GAIN].item() == -1.25


def test_renderings_table_sets_the_model_beside_its_best_linear_rival(written):
    table = pd.read_csv(written / "renderings.csv")
    assert len(table) == 3  # two conditions of one subject, one of the other
    assert set(table["Best linear codec (dB)"]) == {"28.25 (ball)"}  # never the oracle
    assert list(table["MedIL above it (dB)"]) == [1.75, 1.75, -1.25]
    assert set(table["Splines alone (dB)"]) == {26.0}


def test_provenance_names_day_commit_device_and_weights(written):
    text = (written / "provenance.txt").read_text()
    now = rows.Provenance.now("quick")
    assert text.startswith("Recorded 2026-01-01 at commit " + now.commit[:7])
    assert now.device in text and "wwwwwwwwwwww" in text


def test_markdown_table_has_a_line_a_row_and_numbers_to_the_right():
    table = pd.DataFrame({"code": ["a", "b"], "PSNR (dB)": [1.5, 2.0], "SSIM": [0.98765, 1.0]})
    lines = report.markdown(table).splitlines()
    assert lines[0] == "| code | PSNR (dB) | SSIM |"
    assert lines[1] == "| :--- | ---: | ---: |"
    assert lines[2:] == ["| a | 1.50 | 0.988 |", "| b | 2.00 | 1.000 |"]


def test_the_structure_table_is_in_the_order_of_psnr(written):
    table = pd.read_csv(written / "reconstruction_structure.csv")
    best_first = pd.read_csv(written / "reconstruction.csv")["Code"]
    assert list(table["Code"]) == list(best_first)


def test_codecs_table_counts_volumes_on_their_own_grid(written):
    table = pd.read_csv(written / "codecs.csv").set_index("Codec")
    assert (table["n"] == 2).all() and len(table) == 5
    assert table.loc["B-spline, least squares", "PSNR, mean (dB)"] == 27.0
    assert table.index[0] == "DCT, largest (oracle)"  # best first


def test_verdict_says_who_won_by_how_much_and_on_how_many(written):
    text = (written / "verdict.txt").read_text()
    assert "MedIL reaches 30.00 dB with 931,040 numbers (0.129 per voxel)" in text
    assert "1.75 dB above the best linear codec of that size (DCT, lowest ball, 28.25 dB)" in text
    assert "n = 1 volume" in text
    assert "n = 2 held-out volumes: mean 0.25 dB above, from -1.25 to +1.75 dB" in text
    assert "1 of 2 above" in text


def test_verdict_says_below_when_the_model_loses(tmp_path):
    path = tmp_path / "r.jsonl"
    rows.append_rows(path, recorded(gain_db=-4.0))
    report.write(path, tmp_path)
    assert "2.25 dB below the best linear codec" in (tmp_path / "verdict.txt").read_text()


def test_rows_of_older_weights_do_not_mix_with_newer_ones(tmp_path):
    path = tmp_path / "r.jsonl"
    later = "2026-02-01T00:00:00.000000+00:00"
    rows.append_rows(path, recorded() + recorded("head"))
    rows.append_rows(path, recorded(gain_db=1.0, weights_sha256="v" * 64, recorded_at=later))
    table = reconstruction_report.wide(reconstruction_report.current(rows.read_rows(path)))
    ours = table[table["arm"] == "medil"]
    assert list(ours["subject"]) == [BRAIN] and ours["psnr"].item() == 31.0
    assert set(table["subject"]) == {BRAIN, "head"}  # the codecs of the other volume stay


def test_a_larger_release_stands_beside_the_small_one_and_neither_hides_the_other(tmp_path):
    path = tmp_path / "r.jsonl"
    later = "2026-02-01T00:00:00.000000+00:00"
    rows.append_rows(path, recorded())
    larger = recorded(gain_db=-1.5, weights_sha256="v" * 64, recorded_at=later)
    larger = [replace(r, arm="medil_base") for r in larger if r.arm == "medil"]
    rows.append_rows(path, larger)
    table = reconstruction_report.wide(reconstruction_report.current(rows.read_rows(path)))
    assert {"medil", "medil_base"} < set(table["arm"])
    told = reconstruction_report.base_words(table)
    assert "`base` lies 1.50 dB below the small one (mean of n = 1 volumes" in told
    line = reconstruction_report.renderings_table(table).iloc[0]
    assert float(line["Base above it (dB)"]) == float(line["MedIL above it (dB)"]) - 1.5
    assert reconstruction_report.base_words(table[table["arm"] != "medil_base"]) == ""


def test_release_table_holds_quantities_hash_and_commit(tmp_path, spline_model):
    from eval.reconstruction.release import release_rows

    path = tmp_path / "r.jsonl"
    found = release_rows(spline_model, "test", rows.Provenance.now("quick"))
    weights = found[0].weights_sha256
    rows.append_rows(path, recorded(weights_sha256=weights) + found)
    report.write(path, tmp_path)
    table = pd.read_csv(tmp_path / "release.csv").set_index("Quantity")["Value"]
    n_parameters = sum(p.numel() for p in spline_model.parameters())
    assert table["parameters"] == f"{n_parameters:,}"
    assert float(table["latent spacing"]) == 4.0
    assert table["weights, SHA-256"] == weights[:12]


def test_missing_rows_are_one_sentence_and_exit_2_and_write_nothing(tmp_path, capsys):
    out = tmp_path / "tables"
    assert report.main(["--rows", str(tmp_path / "r.jsonl"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "python -m eval.reconstruction" in error
    assert not out.exists()


def test_rows_without_the_key_volume_or_the_model_are_refused(tmp_path):
    codecs_only = [r for r in recorded() if not r.arm.startswith("medil")]
    rows.append_rows(tmp_path / "codecs.jsonl", codecs_only)
    with pytest.raises(InputError, match="no MedIL result"):
        report.write(tmp_path / "codecs.jsonl", tmp_path)
    at_2_mm = [replace(r, spacing_in_mm="2") for r in recorded()]
    rows.append_rows(tmp_path / "coarse.jsonl", at_2_mm)
    with pytest.raises(InputError, match="no volume at 1 mm"):
        report.write(tmp_path / "coarse.jsonl", tmp_path)


def test_command_prints_the_verdict(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    rows.append_rows(path, recorded())
    assert report.main(["--rows", str(path), "--out", str(tmp_path / "a" / "b")]) == 0
    assert "MedIL reaches 30.00 dB" in capsys.readouterr().out
