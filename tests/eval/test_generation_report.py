"""Tables and sentences on sampled heads follow the rows, whichever way the numbers fall."""

import numpy as np
import pandas as pd
import pytest

from eval.generation import EXPERIMENT, opinion, parts, scans
from eval.generation.pictures import control_figure, montage, sharpness_figure
from eval.generation.report import (
    anatomy_table,
    arms_table,
    blur_table,
    bought_table,
    classes_table,
    control_pairs,
    control_table,
    memory_table,
    opinion_table,
    people_table,
)
from eval.generation.sets import UNITS
from eval.generation.verdict import verdict
from eval.rows import SCHEMA
from eval.rows_file import append_rows
from medil.anatomy.classes import CLASSES

ANOTHER, SAMPLED, REBUILT = parts.ANOTHER, parts.SAMPLED, parts.REBUILT


def line(arm, condition, subject, metric, value, profile="gpu"):
    made = dict.fromkeys(SCHEMA, "x") | {
        "experiment": "generation", "arm": arm, "condition": condition, "subject": subject,
        "metric": metric, "value": value, "profile": profile,
        "recorded_at": pd.Timestamp("2026-01-01", tz="UTC"),
    }  # fmt: skip
    return made


def rows(good=True):
    """Rows of a flow that does well or badly at everything."""
    found = []

    def put(arm, condition, subject, **values):
        found.extend(line(arm, condition, subject, m, v) for m, v in values.items())

    def whole(**known):
        return {**dict.fromkeys(UNITS, 0.5), **known}

    flagged = {"nearest": 0.1, "nearest_in_training": 0.1, "bar": 0.05, "flagged_percent": 5.0,
               "copies_percent": 5.0}  # fmt: skip
    put("held-out", ANOTHER, "set of 24", **whole(frechet=4.0), **flagged)
    put("training", ANOTHER, "set of 24", **whole(frechet=5.0))
    put("training", parts.COPIES, "set of 4", **{**flagged, "copies_percent": 100.0})
    own = {**flagged, "copies_percent": 0.0 if good else 50.0}
    for seed, shift in enumerate((-1.0, 0.0, 1.0)):
        subject = f"set of 24, seed {seed}"
        frechet = (11.0 if good else 60.0) + shift
        release = whole(frechet=frechet, ms_ssim=0.60, shape_spread=0.9)
        put("image-only", SAMPLED, subject, **release, **own)
        medil = {"ms_ssim": 0.40, "power_4_8_db": -1.0}
        put("integrated", SAMPLED, subject, **whole(frechet=20.0 + shift, **medil), **own)
        near = 50.0 if good else 20.5
        conv = {"ms_ssim": 0.45, "power_4_8_db": -3.0}
        put("conv-1mm", SAMPLED, subject, **whole(frechet=near + shift, **conv), **own)
        put("trilinear", SAMPLED, subject, **whole(frechet=80.0 + shift), **own)
        cost = {"training_steps": 560.0, "training_min": 8.0}
        with_map = whole(frechet=12.0 + shift, precision=0.9)
        put("anatomy-alike", SAMPLED, subject, **with_map, **own, **cost)
        without = whole(frechet=(90.0 if good else 12.5) + shift, precision=0.1)
        put("image-only-alike", SAMPLED, subject, **without, **own, **cost)
    put("anatomy", REBUILT, "set of 24", **whole(frechet=9.0))
    put("anatomy", SAMPLED, "set of 24, seed 0", **whole(frechet=8.0, ms_ssim=0.4), **own)
    put("anatomy", parts.ONE_MAP, "set of 6, seed 0", ms_ssim=0.8 if good else 0.4)
    for k in range(3):
        shown = dict.fromkeys([*scans.UNITS, *scans.NEAREST], 0.5)
        shown |= {"dice_cortex": 0.8 + 0.01 * k, "cortex_mm": 3.0, "cortex_of_map_mm": 2.5}
        put("anatomy", scans.SHOWN, f"sample {k:03d}", **shown)
        put("anatomy", scans.FLOOR, f"head {k:03d}", **dict.fromkeys(scans.UNITS, 0.9))
        put("anatomy", scans.SOLVED, f"sample {k:03d}", asked=10.0 + k, measured=11.0 + k)
    pair = {"renderings_rms": 0.01, "samples_rms": 0.15 if good else 0.05}
    ratio = 15.0 if good else 5.0
    put("anatomy", parts.RENDERINGS, "set of 2, seed 0", renderings_ratio=ratio, **pair)
    for k, asked in enumerate(np.linspace(10, 70, 12)):
        noise = (-1) ** k * (2.0 if good else 60.0)
        subject = f"sample {k:03d}"
        put("image-only", "ventricles, guidance 1", subject, asked=asked, measured=asked + noise)
        put("image-only", "ventricles, guidance 3", subject, asked=asked, measured=40 + 2 * noise)
        put("ruler", "ventricles, held-out", f"head {k:03d}", asked=asked, measured=asked + 1)
        put("ruler", f"ventricles, {parts.REAL}", f"sub {k:02d}", asked=asked, measured=asked - 3)
    near = dict.fromkeys(opinion.UNITS, 0.25)
    put("held-out", ANOTHER + opinion.OPINION, "set of 24", **near)
    put("anatomy", SAMPLED + opinion.OPINION, "set of 24, seed 0", **near)
    for k, sigma in enumerate(parts.BLURS_MM):
        moved = {"ms_ssim": 0.5 + (0.02 * k if good else 0), "power_4_8_db": -3.0 * k}
        moved["shape_spread"] = 1 if good else 1 - 0.1 * k
        put("held-out", parts.blur_name(sigma), "set of 24", **whole(blur_mm=sigma, **moved))
    soft = whole(blur_mm=1.2, ms_ssim=0.59 if good else 0.5)
    put("held-out", parts.MATCHED + "image-only", "set of 24, seed 0", **soft)
    alike = whole(blur_mm=0.8, ms_ssim=0.455 if good else 0.42)
    put("integrated", parts.MATCHED + "conv-1mm", "set of 24, seed 0", **alike)
    return pd.DataFrame(found)


def prepared(good=True):
    return EXPERIMENT.prepare(rows(good))


def test_arms_stand_with_mean_range_and_n_after_the_rulers():
    table = arms_table(prepared())
    assert list(table["Heads"][:2]) == ["held-out heads", "training heads"]
    release = table[(table["Heads"] == "image only, released") & (table["Set"] == "sampled")].iloc[
        0
    ]
    assert release["Fréchet"] == "11.0 [10.0, 12.0]"
    assert release["n"] == "24 × 3 seeds"
    assert table.iloc[0]["Fréchet"] == "4.0" and table.iloc[0]["n"] == "24"


def test_copies_and_rulers_stand_in_the_table_of_copies():
    table = memory_table(prepared()).set_index(["Heads", "Set"])["Flagged, relative (%)"]
    assert table["training heads", "copies"] == "100.0"
    assert table["image only, released", "sampled"] == "0.0 [0.0, 0.0]"


def test_control_stands_for_each_weight_with_the_ruler_first():
    pairs, table = control_pairs(prepared()), control_table(prepared())
    solved = scans.SOLVED.partition(", ")[2]
    assert len(pairs) == 51
    assert set(pairs["how"]) == {"guidance 1", "guidance 3", "held-out", parts.REAL, solved}
    assert table.iloc[0]["Heads"] == "the ruler itself" and table.iloc[0]["Bias"] == "+1"
    assert table.iloc[0]["r²"] == "1.00 [1.00, 1.00]" and table.iloc[0]["n"] == 12
    assert list(table["Under"][1:]) == [parts.REAL, "guidance 1", "guidance 3", solved]


def test_classes_stand_beside_what_the_segmenter_finds_at_best():
    table = classes_table(prepared()).set_index("Class")
    assert len(table) == len(CLASSES) - 1
    assert table.loc["cortex", "Samples (Dice)"].startswith("0.810 [0.80")
    assert table.loc["cortex", "Heads (Dice)"] == "0.900 [0.900, 0.900]"
    assert table.loc["cortex", "n"] == "3 / 3"


def test_what_a_scan_shows_stands_beside_its_map():
    table = anatomy_table(prepared()).set_index(["What", "Of"])
    own = table.loc[("Thickness of the cortex (mm)", "samples")]
    assert own["In the scan"] == "3.00 [3.00, 3.00]" and own["In the map"] == "2.50 [2.50, 2.50]"
    assert own["Scan − map"] == "+0.50 [+0.50, +0.50]"


def test_anatomies_of_samples_stand_beside_those_of_held_out_heads():
    table = people_table(prepared()).set_index("Of the map")
    line = table.loc["Thickness of the cortex (mm)"]
    assert line["Samples"] == "2.50 [2.50, 2.50]" and line["Held-out heads"] == "0.90 [0.90, 0.90]"
    assert line["n"] == "3 / 3"


def test_the_second_opinion_names_each_set():
    table = opinion_table(prepared())
    assert list(table["Heads"]) == ["held-out heads", "anatomy first, released"]
    assert list(table["Coverage"]) == ["0.25", "0.25"]


def test_blurs_stand_in_order_and_matched_sets_after_them():
    table = blur_table(prepared())
    assert list(table["Blur (mm)"]) == ["0.00", "0.50", "1.00", "1.50", "2.00", "1.20", "0.80"]
    assert table.iloc[-2]["Sharpness"] == "at the sharpness of image only, released"


def test_what_a_map_buys_stands_with_minutes_and_training_seeds():
    table = bought_table(prepared()).set_index("Sampler")
    own, without = table.loc["anatomy first, equal compute"], table.loc["image only, equal compute"]
    assert own["Minutes"] == without["Minutes"] == "8.0 [8.0, 8.0]"
    assert own["Fréchet"] == "12.0 [11.0, 13.0]" and own["n"] == "24 × 3 seeds"
    assert without["Precision"] == "0.10 [0.10, 0.10]" and own["Steps"] == "560"
    assert list(table.index[2:]) == ["anatomy first, released", "image only, released"]


@pytest.mark.parametrize(
    "good, says",
    [
        (True, ("comes from the autoencoder", "seeds do not overlap", "less than held-out",
                "differ 15.0 times less", "under guidance 1. The measurement",
                "cortex with a Dice of 0.81", "slope 1.00, RMS error 1.0 ml",
                "precision 0.90 and 0.10", "12.0, those without a map 90.0; the seeds do not",
                "at equal sharpness their diversity does not differ clearly",
                "differ by 3.0 ml (RMS; ruler minus segmenter -3.0 ml)",
                "most of the diversity is that of the maps",
                "raises their MS-SSIM by 0.080",
                "shape does not change", "differ mostly by sharpness")),
        (False, ("comes from sampling", "but seeds overlap", "more often than held-out",
                 "differ 5.0 times less", "under guidance 1. The measurement",
                 "changes their MS-SSIM by +0.000", "the seeds overlap",
                 "differs by -0.030: at equal sharpness MedIL is more diverse",
                 "the maps add little diversity",
                 "shape changes too", "differ by more than sharpness")),
    ],
)  # fmt: skip
def test_words_follow_the_numbers(good, says):
    text = verdict(prepared(good))
    for words in says:
        assert words in text


def test_parts_without_rows_are_left_out_of_words_and_tables():
    frame = prepared()
    only = frame[frame["condition"].isin([SAMPLED, ANOTHER, REBUILT])]
    assert "blur" not in verdict(only) and "Fréchet" in verdict(only)
    assert blur_table(only).empty and control_table(only).empty


def test_a_quick_run_does_not_mix_with_a_whole_one():
    quick = rows().assign(profile="quick", value=1000.0)
    mixed = EXPERIMENT.prepare(pd.concat([rows(), quick]))
    assert arms_table(mixed).equals(arms_table(prepared()))


def test_tables_are_written_from_a_file_of_rows(tmp_path, made_rows):
    append_rows(tmp_path / "generation.jsonl", made_rows)
    names = [p.name for p in EXPERIMENT.write(tmp_path, tmp_path / "out")]
    assert names[:2] == ["generation_arms.csv", "generation_verdict.txt"]
    assert "held-out heads" in (tmp_path / "out" / names[0]).read_text("utf-8")


@pytest.fixture
def made_rows():
    """One whole set of rows as the experiment records them."""
    from eval.rows import Measurement, Provenance, Sampling

    about = Measurement("generation", "set of 24", "held-out", ANOTHER, "a", "b", "")
    values, units = dict.fromkeys(UNITS, 0.5), dict.fromkeys(UNITS, "1")
    return about.rows(values, units, Sampling("2", "2", 8, 8), 1.0, Provenance.now("gpu"))


def test_figures_show_every_group():
    pytest.importorskip("matplotlib")
    control = control_figure(prepared())
    assert [ax.get_title() for ax in control.axes] == [
        "the ruler,\nheld-out heads", "anatomy first,\nsolved for in the map",
        "image only,\nguidance 1", "image only,\nguidance 3",
    ]  # fmt: skip
    left, right = sharpness_figure(prepared()).axes
    assert len(left.lines) == len(right.lines) == 6  # blurs, and five arms
    assert left.lines[0].get_xdata().tolist() == [0, -3, -6, -9, -12]
    heads = {name: np.full((80, 96, 80), 0.5) for name in ("held-out", "sampled")}
    assert len([ax for ax in montage(heads).axes if ax.images]) == 6
