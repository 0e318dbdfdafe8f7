"""Tables come from rows alone, and say what the rows say."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from eval import report, rows, rows_file, tables
from eval.reconstruction import EXPERIMENT
from eval.reconstruction import report as of_rows
from tests.recorded_rows import BRAIN, DB, recorded


def record(folder, *parts):
    """Write rows into a folder, and give the prepared ones."""
    folder.mkdir(exist_ok=True)
    for part in parts:
        rows_file.append_rows(folder / "reconstruction.jsonl", part)
    return EXPERIMENT.recorded(folder)


@pytest.fixture
def written(tmp_path):
    """Tables of two subjects, one of which the model loses on."""
    record(
        tmp_path, recorded(), recorded(condition="native -> 2 mm"), recorded("head", gain_db=-3.0)
    )
    report.write(tmp_path, tmp_path / "tables")
    return tmp_path / "tables"


def test_reconstruction_table_is_sorted_and_differences_are_to_the_best_linear_codec(written):
    table = pd.read_csv(written / "reconstruction.csv")
    assert list(table["PSNR (dB)"]) == sorted(DB.values(), reverse=True)
    gains = dict(zip(table["Code"], table[of_rows.GAIN], strict=True))
    assert gains["MedIL tiny"] == 1.75  # 30 - 28.25: the ball, and not the oracle, is the rival
    assert gains["DCT, lowest ball"] == 0.0
    assert gains["DCT, largest (oracle)"] == 4.75
    assert len(table) == len(DB)  # of the 1 mm brain alone
    assert set(table["Numbers per voxel"]) == {round(931_040 / 7_221_032, 3)}
    assert {"PSNR (dB)", "SSIM", "HFEN", "Gradient error", "Numbers per voxel", "n"} <= set(table)


def test_grids_table_has_every_subject_condition_and_arm(written):
    table = pd.read_csv(written / "reconstruction_grids.csv")
    assert len(table) == 3 * len(DB)
    lost = table[(table["Scan"] == "head") & (table["Code"] == "MedIL tiny")]
    assert lost[of_rows.GAIN].item() == -1.25


def test_renderings_table_sets_the_model_beside_its_best_linear_rival(written):
    table = pd.read_csv(written / "renderings.csv")
    assert len(table) == 3  # two conditions of one subject, one of the other
    assert set(table["Best linear codec (dB)"]) == {"28.25 (ball)"}  # never the oracle
    assert list(table["MedIL tiny above it (dB)"]) == [1.75, 1.75, -1.25]
    assert set(table["Splines alone (dB)"]) == {26.0}


def test_provenance_names_day_commit_device_and_weights(written):
    text = (written / "reconstruction_provenance.txt").read_text()
    now = rows.Provenance.now("quick")
    assert text.startswith("Recorded 2026-01-01 at commit " + now.commit[:7])
    assert now.device in text and "wwwwwwwwwwww" in text


def test_markdown_table_has_a_line_a_row_and_numbers_to_the_right():
    table = pd.DataFrame({"code": ["a", "b"], "PSNR (dB)": [1.5, 2.0], "SSIM": [0.98765, 1.0]})
    lines = tables.markdown(table).splitlines()
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


def test_verdict_says_by_how_much_and_what_is_not_recorded(written):
    assert (written / "reconstruction_verdict.txt").read_text() == (
        "On patient07 T1 MNI at 1 mm, inside the brain, MedIL tiny reaches 30.00 dB with 931,040 "
        "numbers (0.129 per voxel): 1.75 dB above the best linear codec of that size (DCT, lowest "
        "ball, 28.25 dB); n = 1 volume. Over n = 2 held-out volumes, each on its own grid, its "
        "gain over the best codec is +0.25 [-1.25, +1.75] dB [95 % interval over volumes], from "
        "-1.25 dB on 1 mm voxels to +1.75 dB on 1 mm voxels. The gain by voxel size on the same "
        "brains is not recorded yet; python -m eval.reconstruction --profile gpu records it.\n"
    )


def test_a_volume_that_the_latent_does_not_compress_is_left_out_and_counted(tmp_path):
    frame = record(tmp_path, recorded(), recorded("head", gain_db=-300.0), recorded("other"))
    whole = frame["subject"] == "head"
    kept = frame["numbers_per_voxel"].where(~whole, 1.5)
    told = of_rows.verdict(frame.assign(numbers_per_voxel=kept))
    assert "Over n = 2 held-out volumes" in told and "-300" not in told
    assert "Left out: 1 of n = 3 volumes" in told


def test_verdict_says_below_when_the_model_loses(tmp_path):
    told = of_rows.verdict(record(tmp_path, recorded(gain_db=-4.0)))
    assert "2.25 dB below the best linear codec" in told


@pytest.mark.parametrize(("day", "primary"), [("2026-11-30", True), ("2026-11-01", False)])
def test_the_primary_comparison_is_said_of_rows_newer_than_its_naming(tmp_path, day, primary):
    at = f"{day}T00:00:00.000000+00:00"
    twice = ["patient01_study1_T1W", "patient01_study2_T1W"]  # one person
    names = [*twice, *(f"sub-{k}" for k in range(9))]
    parts = [recorded(n, gain_db=0.1 * k, recorded_at=at) for k, n in enumerate(names)]
    told = of_rows.verdict(record(tmp_path, *parts))
    assert ("over n = 10 people and synthetic heads its gain is +2." in told) == primary
    assert ("Holm p = 0.0098" in told) == primary


def test_rows_of_older_weights_do_not_mix_with_newer_ones(tmp_path):
    later = "2026-02-01T00:00:00.000000+00:00"
    newer = recorded(gain_db=1.0, weights_sha256="v" * 64, recorded_at=later)
    table = of_rows.wide(record(tmp_path, recorded() + recorded("head"), newer))
    ours = table[table["arm"] == "medil"]
    assert list(ours["subject"]) == [BRAIN] and ours["psnr"].item() == 31.0
    assert set(table["subject"]) == {BRAIN, "head"}  # the codecs of the other volume stay


def test_a_larger_release_stands_beside_the_small_one_and_neither_hides_the_other(tmp_path):
    later = "2026-02-01T00:00:00.000000+00:00"
    larger = recorded(gain_db=-1.5, weights_sha256="v" * 64, recorded_at=later)
    larger = [replace(r, arm="medil_base") for r in larger if r.arm == "medil"]
    frame = record(tmp_path, recorded(), larger)
    table = of_rows.wide(frame)
    assert {"medil", "medil_base"} < set(table["arm"])
    told = of_rows.verdict(frame)
    assert "MedIL base is 1.50 dB below MedIL tiny (mean over n = 1 volumes" in told
    line = of_rows.renderings_table(table).iloc[0]
    assert float(line["Base above it (dB)"]) == float(line["MedIL tiny above it (dB)"]) - 1.5
    assert "base" not in of_rows.verdict(frame[frame["arm"] != "medil_base"])


def test_a_model_of_another_size_stands_beside_codecs_of_its_own_size(tmp_path):
    """Weights in a file at 3 mm, in the folder that holds the release and its codecs."""

    def larger(row):
        ours = {"medil": "medil_mine", "medil_splines": "medil_mine_splines"}
        return replace(row, arm=ours.get(row.arm, row.arm), numbers_kept=2 * row.numbers_kept)

    later = "2026-02-01T00:00:00.000000+00:00"
    own = [larger(r) for r in recorded(gain_db=3.0, weights_sha256="v" * 64, recorded_at=later)]
    own = [replace(r, value=r.value + 2 * (r.arm == "dct_ball")) for r in own]
    table = of_rows.wide(record(tmp_path, recorded(), own)).set_index("arm")
    assert table.loc["medil", ["gain_db", "rival_db"]].tolist() == [1.75, 28.25]
    assert table.loc["medil_mine", ["gain_db", "rival_db"]].tolist() == [2.75, 30.25]
    alone = [r for r in own if r.arm == "medil_mine"]
    told = of_rows.verdict(record(tmp_path / "alone", alone))
    assert "MedIL mine reaches 33.00 dB" in told and "No linear codec of that size" in told


def test_release_table_holds_quantities_hash_and_commit(tmp_path, spline_model):
    from eval.reconstruction.measure import release_rows

    found = release_rows(spline_model, "test", rows.Provenance.now("quick"))
    weights = found[0].weights_sha256
    frame = record(tmp_path, recorded(weights_sha256=weights) + found)
    table = of_rows.release_table(frame).set_index("Quantity")["Value"]
    n_parameters = sum(p.numel() for p in spline_model.parameters())
    assert table["parameters"] == f"{n_parameters:,}"
    assert float(table["latent spacing"]) == 4.0
    assert table["weights, SHA-256"] == weights[:12]


def test_missing_rows_are_one_sentence_and_exit_2_and_write_nothing(tmp_path, capsys):
    out = tmp_path / "tables"
    assert report.main(["--rows", str(tmp_path / "none"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "python -m eval.reconstruction" in error
    assert not out.exists()


PARTIAL = {  # arms that are recorded, or one voxel size: what the verdict says, tables
    ("medil",): ("No linear codec of that size", 3),
    ("cubic", "dct_ball"): ("No trained model is recorded", 4),
    ("interpolation",): ("No trained model is recorded", 3),
    tuple(DB): ("not recorded on a volume at 1 mm", 3),
}


@pytest.mark.parametrize("arms", PARTIAL, ids=lambda arms: "-".join(arms[:2]))
def test_a_partial_record_gives_tables_with_gaps_and_a_sentence(tmp_path, arms):
    spacing = "2" if arms == tuple(DB) else "1"
    found = [replace(r, spacing_in_mm=spacing) for r in recorded() if r.arm in arms]
    if arms == ("interpolation",):
        found = [replace(r, arm="interpolation") for r in recorded() if r.arm == "cubic"]
    words, n_tables = PARTIAL[arms]
    record(tmp_path, found)
    written = EXPERIMENT.write(tmp_path, tmp_path / "out")
    assert words in (tmp_path / "out" / "reconstruction_verdict.txt").read_text()
    assert sum(path.suffix == ".csv" for path in written) == n_tables


def test_the_command_prints_what_it_wrote_and_the_first_line_of_every_verdict(tmp_path, capsys):
    record(tmp_path, recorded())
    assert report.main(["--rows", str(tmp_path), "--out", str(tmp_path / "a" / "b")]) == 0
    told = capsys.readouterr().out
    assert "MedIL tiny reaches 30.00 dB" in told and "reconstruction_grids.csv" in told
