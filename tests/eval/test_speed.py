"""The slow renderer is the equations', clocks and rulers count right, tables say what rows say.

No test asserts how fast anything is.
"""

from __future__ import annotations

import argparse
import itertools
import math
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from eval import rows, rows_file
from eval.pages import here
from eval.speed import (
    EXPERIMENT,
    bars,
    busy,
    ceilings,
    child,
    clock,
    measure,
    pages,
    pictures,
    rendering,
    report,
    verdict,
    whole,
)
from eval.speed import timing as kinds
from eval.speed.bars import MET, NOT_MET, UNKNOWN
from eval.speed.naive import naive_lte
from eval.speed.renderers import EAGER, PLAIN, Scene, literal
from eval.speed.timing import Plan, Timing
from eval.tables import three_digits
from medil.errors import InputError
from medil.grid import Grid
from medil.layers import reference
from medil.layers.projection import axis_matrix

PROVENANCE = rows.Provenance.now("quick")


@pytest.fixture(scope="module")
def layer():
    """A literal layer of few channels, in float64, with weights everywhere."""
    return literal(5, frequencies=3, hidden=7).double()


@pytest.fixture
def features(grid, rng) -> torch.Tensor:
    """[1, 5, 7, 8, 9] on the uneven grid."""
    return torch.from_numpy(rng.normal(size=(1, 5, *grid.shape)))


def finer(grid: Grid) -> Grid:
    return grid.resized([12, 13, 19])


# The naive renderer


@torch.no_grad()
def test_the_naive_renderer_is_the_slow_loop(layer, features, grid):
    voxels = finer(grid)
    rendered = naive_lte(layer, features, grid, voxels)
    frequency = layer.frequency(features)[0].unflatten(0, (-1, 3)).numpy()
    amplitude = layer.amplitude(features)[0].numpy()
    phase_weight = layer.phase.weight.numpy()

    def mlp(texture: np.ndarray) -> np.ndarray:
        return layer.mlp(torch.from_numpy(texture)).numpy()

    for voxel in [(0, 0, 0), (5, 6, 7), (11, 12, 18), (3, 0, 18)]:  # borders too
        truth = reference.literal_lte(amplitude, frequency, phase_weight, mlp, grid, voxels, voxel)
        assert rendered[(0, slice(None), *voxel)].numpy() == pytest.approx(truth, abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("turned_deg", [0.0, 11.0])
def test_the_naive_renderer_is_the_layer_on_parallel_and_oblique_grids(
    layer, features, grid, turned_deg
):
    voxels = finer(grid).rotated((1, 2, 3), turned_deg) if turned_deg else finer(grid)
    inside = voxels.crop((4, 4, 6), (4, 5, 7))  # the turned corners lie far outside
    truth = layer(features, grid, inside)
    apart = (naive_lte(layer, features, grid, inside) - truth).abs().max() / truth.std()
    assert apart < 1e-6  # areas get 1e-9 more, queries are nudged by 1e-6 of the box


@torch.no_grad()
def test_chunks_make_no_difference(layer, features, grid, monkeypatch):
    whole = naive_lte(layer, features, grid, finer(grid))
    monkeypatch.setattr("eval.speed.naive.QUERIES", 101)
    assert torch.allclose(naive_lte(layer, features, grid, finer(grid)), whole, atol=1e-12)


# Clocks


class Ticking:
    """A clock that jobs move by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def job(self, *seconds: float):
        """Takes these seconds in turn, then the last of them for ever."""
        each = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def run() -> None:
            self.now_s += next(each)

        return run


def test_jobs_run_in_turns_after_one_uncounted_run():
    ticking, order = Ticking(), []
    jobs = {name: lambda name=name: order.append(name) for name in "ABC"}
    clock.interleaved(jobs, 2, ticking)
    assert "".join(order) == "ABC" * 3


def test_the_first_run_is_not_timed():
    ticking = Ticking()
    times = clock.interleaved({"slow at first": ticking.job(100.0, 2.0)}, 3, ticking)
    assert times["slow at first"].tolist() == [2.0, 2.0, 2.0]


def test_a_short_job_runs_often_enough_and_counts_once():
    ticking = Ticking()
    jobs = {"short": ticking.job(0.25), "long": ticking.job(3.0)}
    times = clock.interleaved(jobs, 2, ticking, at_least_s=1.0)
    assert times["short"].tolist() == [0.25, 0.25] and times["long"].tolist() == [3.0, 3.0]
    assert ticking.now_s == pytest.approx(2 * (0.25 + 3.0) + 2 * (4 * 0.25 + 3.0))


def test_the_device_is_waited_for_before_the_clock_is_read():
    ticking = Ticking()

    def wait() -> None:
        ticking.now_s += 10.0  # what the device still had to do

    assert clock.interleaved({"queued": lambda: None}, 1, ticking, wait)["queued"] == [10.0]


def test_a_job_that_compiles_at_first_is_not_run_twice_for_that():
    ticking = Ticking()
    clock.interleaved({"compiled": ticking.job(100.0, 0.5)}, 1, ticking, at_least_s=1.0)
    assert ticking.now_s == 100.5


def test_ratios_are_taken_within_rounds():
    # The machine was three times slower in the second round: no ratio changes by that.
    ticking = Ticking()
    jobs = {"over": ticking.job(1.0, 4.0, 12.0, 4.4), "under": ticking.job(1.0, 2.0, 6.0, 2.0)}
    times = clock.interleaved(jobs, 3, ticking)
    ratio = times["over"] / times["under"]
    assert ratio == pytest.approx([2.0, 2.0, 2.2])
    written = Timing("over", kinds.GROWTH, "s", {"ratio_to_naive": ratio}, 8).to_rows(PROVENANCE)
    assert {row.metric: row.value for row in written} == pytest.approx(
        {"ratio_to_naive": 2.0, "ratio_to_naive_low": 2.0, "ratio_to_naive_high": 2.2,
         "ratio_to_naive_rounds": 3.0}
    )  # fmt: skip


# Memory


def test_a_childs_peak_holds_what_it_filled_and_nothing_of_its_parent():
    ballast = np.ones(600_000_000 // 8)  # 600 MB here
    peak_mb = child.run_job("allocate", 1, megabytes=300)["peak_rss_mb"]
    assert 300 < peak_mb < 500 < ballast.nbytes / child.MB


def test_a_child_that_fails_says_why():
    with pytest.raises(RuntimeError, match="megabytes"):
        child.run_job("allocate", 1)


def test_the_peak_is_read_where_there_is_no_proc(tmp_path):
    assert child.peak_rss_bytes(tmp_path / "none") > 10_000_000


# Ceilings


def test_the_longer_of_the_two_times_binds():
    ns_per_voxel, flop_per_s, bytes_per_s = map(np.array, ([40, 80], [1e10, 1e10], [2e9, 1e9]))
    shares = ceilings.shares((100.0, 40.0), ns_per_voxel, flop_per_s, bytes_per_s)
    assert shares["arithmetic_share"] == pytest.approx([25.0, 12.5])
    assert shares["copy_share"] == pytest.approx([50.0, 50.0])
    assert shares["ceiling_share"] == pytest.approx([50.0, 50.0])


def test_the_work_of_the_integrated_renderer_is_that_of_its_matrices():
    scene = Scene.drawn(12, 4)
    operator = rendering.peers(4)["integrated"]
    counted = ceilings.integrated_work(scene, operator)[0] * scene.voxels.n_voxels
    cells, voxels, j = 12, 24, operator.basis.n_functions
    # A voxel of half a cell's width lies within one half of a cell: two cells reach it.
    window = axis_matrix(operator.basis, scene.nodes, scene.voxels, 0)[:, 0]
    entries = (window > 1e-12).sum()
    assert entries == 2 * voxels - 2  # beyond the edge the edge's cell counts twice
    products = sum(2 * entries * j * (j * cells) ** (2 - k) * voxels**k for k in range(3))
    convolution = 2 * 4 * j**3 * cells**3
    assert counted == pytest.approx(products + convolution)


# Rows and what is made of them


def recorded(path, *things: Timing) -> pd.DataFrame:
    rows_file.append_rows(path, [row for t in things for row in t.to_rows(PROVENANCE)])
    return EXPERIMENT.prepare(rows_file.read_rows(path))


def literal_rows(compiled: float, apart: float = 1e-7) -> list[Timing]:
    sizes = "96^3 from 48^3 x 64 channels"
    return [
        Timing("naive", kinds.LITERAL, sizes, {"ns_per_voxel": np.array([9e3, 1e4, 2e4])}, 96**3),
        Timing("separable, compiled", kinds.LITERAL, sizes,
              {"ns_per_voxel": np.array([1.9e3, 2e3, 4e3]), "max_difference": apart,
               "ratio_to_naive": np.array([compiled - 1, compiled, compiled + 1])}, 96**3),
    ]  # fmt: skip


def verdicts(frame: pd.DataFrame) -> dict[str, str]:
    table = bars.bars_table(frame)
    return dict(zip(table["Bar"], table["Verdict"]))


def test_a_bar_is_met_or_not_and_others_are_not_measured(tmp_path):
    good = recorded(tmp_path / "good.jsonl", *literal_rows(4.5))
    bad = recorded(tmp_path / "bad.jsonl", *literal_rows(3.5, apart=1e-3))
    faster, same = bars.BARS[0].says, bars.BARS[3].says
    assert (verdicts(good)[faster], verdicts(good)[same]) == (MET, MET)
    assert (verdicts(bad)[faster], verdicts(bad)[same]) == (NOT_MET, NOT_MET)
    assert set(verdicts(good).values()) == {MET, UNKNOWN}
    assert "bar" not in EXPERIMENT.verdict(bad)
    measured = bars.ratios_table(bad).set_index("Quantity")["Measured"]
    assert measured[faster] == "3.5" and len(measured) == 2


def test_the_table_shows_what_was_asked_measured_and_its_spread(tmp_path):
    table = bars.bars_table(recorded(tmp_path / "speed.jsonl", *literal_rows(4.5)))
    assert list(table) == ["Bar", "Asked", "Measured", "Lowest to highest", "Rounds", "Verdict",
                           "Measured on"]  # fmt: skip
    line = table.iloc[0]
    assert (line["Asked"], line["Measured"], line["Lowest to highest"], line["Rounds"]) == (
        "at least 4", "4.5", "3.5 to 5.5", "3",
    )  # fmt: skip
    assert line["Measured on"] == "96^3 from 48^3 x 64 channels, 1 thread"


def test_of_several_rows_the_worst_counts(tmp_path):
    things = [
        Timing("tiny", kinds.TILES, f"tiles of {n}", {"max_error": error}, 8)
        for n, error in ((1, 1e-7), (3, 1e-4), (5, 1e-6))
    ]
    table = bars.bars_table(recorded(tmp_path / "speed.jsonl", *things))
    line = table[table["Bar"].str.startswith("Tiled")].iloc[0]
    assert (line["Measured"], line["Verdict"]) == ("1e-4", NOT_MET)
    assert line["Measured on"] == "tiles of 3, 1 thread"


def test_the_newest_run_counts_and_older_sizes_fall_away(tmp_path, monkeypatch):
    path = tmp_path / "speed.jsonl"
    old = Timing("gone", kinds.LITERAL, "8^3 from 4^3", {"ratio_to_naive": 9.0}, 8)
    monkeypatch.setattr(rows, "now_utc", lambda: "2025-01-01T00:00:00.000000+00:00")
    recorded(path, old, *literal_rows(2.0))
    monkeypatch.undo()
    frame = recorded(path, *literal_rows(5.0))
    assert "gone" not in set(frame["arm"])
    assert verdicts(frame)[bars.BARS[0].says] == MET


def test_rows_of_a_gpu_stand_beside_those_of_a_cpu(tmp_path):
    values = {"ceiling_share": 40.0}
    frame = recorded(
        tmp_path / "speed.jsonl",
        Timing("integrated", kinds.INTEGRATED, "s", values, 8),
        Timing("integrated", kinds.INTEGRATED, "s", {"ceiling_share": 70.0}, 8, device="NVIDIA X"),
    )
    ceilings_of = {bar: v for bar, v in verdicts(frame).items() if "ceiling" in bar}
    assert sorted(ceilings_of.values()) == [MET, NOT_MET]
    assert ceilings_of[next(bar for bar in ceilings_of if bar.startswith("GPU"))] == MET


def test_what_binds_is_said_from_the_rows(tmp_path):
    def of(copy: float, arithmetic: float) -> str:
        values = {"copy_share": copy, "arithmetic_share": arithmetic, "ns_per_voxel": 20.0}
        thing = Timing("integrated", kinds.INTEGRATED, "s", values, 8)
        frame = recorded(tmp_path / f"{copy:g}.jsonl", thing)
        return verdict.binding(frame, "1 thread")

    assert "On 1 thread, copying limits" in of(60.0, 10.0)
    assert "On 1 thread, arithmetic limits" in of(5.0, 30.0)


def grown(path) -> pd.DataFrame:
    """Four sizes of output, and MONAI."""
    things = [
        Timing("medil decode", kinds.GROWTH, f"{s:g} mm",
              {"seconds": 5 / s, "peak_rss_mb": 900 + 50 / s, "peak_ratio_to_1_mm": 1.2,
               "n_voxels": 7e6 / s**3}, round(7e6 / s**3), 2)
        for s in (1.0, 0.7, 0.5, 0.35)
    ]  # fmt: skip
    coded = {"encode_s": np.array([50.0]), "decode_s": np.array([60.0]),
             "peak_rss_mb": np.array([7000.0])}  # fmt: skip
    return recorded(
        path, *things, Timing("monai", kinds.WHOLE, "182 x 218 x 182", coded, 7_221_032)
    )


def test_growth_is_listed_from_coarse_to_fine(tmp_path):
    table = report.growth_table(grown(tmp_path / "speed.jsonl"))
    assert list(table["Voxel"]) == ["1 mm", "0.7 mm", "0.5 mm", "0.35 mm"]
    assert list(table["Peak over that at 1 mm"]) == ["1.20"] * 4
    whole = report.whole_table(grown(tmp_path / "more.jsonl"))
    assert whole["Peak memory (MB)"].to_list() == ["7,000"]


def test_jobs_of_a_gpu_stand_apart_from_those_of_a_processor(tmp_path):
    brain = {"seconds": np.array([0.3, 0.4, 0.5]), "device_ms": 25.0, "peak_cuda_mb": 500.0}
    step = {"seconds": 0.04, "peak_cuda_mb": 170.0}
    gpu = {"device": "NVIDIA X"}
    frame = recorded(
        tmp_path / "speed.jsonl",
        Timing("tiny", kinds.GPU_BRAIN, "0.5 mm", brain, 8, **gpu),
        Timing("integrated", kinds.TRAINING, "a patch", step, 8, **gpu),
        Timing("integrated", kinds.TRAINING, "a patch", {"seconds": 0.2}, 8),
    )
    table = report.gpu_table(frame).set_index("Job")
    assert set(table["On"]) == {"NVIDIA X"} and len(table) == 2
    row = table.loc[f"{kinds.GPU_BRAIN}, tiny, 0.5 mm"]
    assert (row["On the device (ms)"], row["In all (ms)"]) == ("25", "400")
    assert table.loc[f"{kinds.TRAINING}, integrated, a patch", "On the device (ms)"] == ""
    assert report.gpu_table(grown(tmp_path / "more.jsonl")).empty


def test_words_follow_the_rows_and_say_when_there_are_none(tmp_path):
    sentences = EXPERIMENT.verdict(grown(tmp_path / "speed.jsonl"))
    assert sentences.startswith("From 1 mm to 0.35 mm the output has 23.3 times the voxels.")
    assert "hardly grows: 1.1 times (950 MB, then 1,043 MB)" in sentences
    assert pictures.growth_figure(None).axes[0].texts[0].get_text() == "nothing is recorded yet"


def test_figures_draw_what_is_recorded_and_say_what_is_not(tmp_path):
    frame = grown(tmp_path / "speed.jsonl")
    axes = pictures.growth_figure(frame).axes
    line = axes[0].lines[0]
    assert line.get_xdata()[-1] == pytest.approx(7e6 / 0.35**3, rel=1e-6)
    assert axes[0].get_xscale() == axes[1].get_yscale() == "log"
    empty = pictures.renderers_figure(recorded(tmp_path / "few.jsonl", *literal_rows(4.0)))
    assert "no ceilings" in empty.axes[1].texts[0].get_text()


def test_tables_are_written_from_rows(tmp_path):
    grown(tmp_path / "speed.jsonl")
    written = {path.name for path in EXPERIMENT.write(tmp_path, tmp_path / "out")}
    assert written == {
        f"speed_{n}"
        for n in (
            "ratios.csv",
            "whole.csv",
            "growth.csv",
            "verdict.txt",
            "answer.md",
            "provenance.txt",
        )
    }
    read = pd.read_csv(tmp_path / "out/speed_ratios.csv")
    assert 0 < len(read) < len(bars.BARS) and "Verdict" not in read


@pytest.mark.parametrize(
    ("value", "said"),
    [(1234.4, "1,234"), (12.34, "12.3"), (3e-7, "3e-7"), (math.nan, "not finite")],
)
def test_numbers_read_well(value, said):
    assert three_digits(value) == said


def test_waiting_threads_are_timed_in_turns_beside_a_busy_process(tmp_path, monkeypatch):
    seen = []

    def run_job(name, threads, environment, /, **job):
        policy = environment["OMP_WAIT_POLICY"]
        seen.append((name, threads, policy, len(running)))
        return {"encode_s": 4.0, "decode_s": 8.0 if policy == "active" else 2.0}

    running = []

    class Other:
        def __init__(self, command, **_):
            running.append(self)

        def kill(self):
            running.remove(self)

        def wait(self):
            pass

    monkeypatch.setattr(busy.child, "run_job", run_job)
    monkeypatch.setattr(busy.subprocess, "Popen", Other)
    grid = Grid.from_spacing((4, 5, 6), 1.0)
    brain = whole.Brain(tmp_path / "brain.nii", "made", grid, "tiny", "0" * 64)
    frame = recorded(tmp_path / "speed.jsonl", *busy.beside_another(brain, 2))
    jobs = [("release", whole.THREADS, policy, 1) for policy in ("active", "passive")]
    assert seen == 2 * jobs and not running
    own = report.wide(frame, kinds.BUSY).set_index("arm")
    assert own.loc["threads sleep", ["seconds", "ratio_to_spinning"]].tolist() == [6.0, 2.0]
    assert own.loc["threads spin", "seconds"] == 12.0
    assert "2 threads takes 6 s, 2 times less than" in EXPERIMENT.verdict(frame)


# Pages of the book


def page_rows(name: str, wall_s: float, cpu_s: float, device: str = "cpu") -> Timing:
    values = {"seconds": wall_s, "cpu_s": cpu_s}
    return Timing("notebook", f"{kinds.PAGE} {name}", "profile quick", values, 1, device=device)


def test_minutes_of_a_page_are_cpu_time_on_a_cpu_and_the_clock_s_on_a_gpu(tmp_path):
    things = [page_rows("01_b", 600, 90), page_rows("00_a", 9, 6), page_rows("00_a", 30, 9, "T4")]
    frame = recorded(tmp_path / "speed.jsonl", *things)
    table = report.page_minutes(frame).set_index(["page", "where"])["minutes"]
    assert table["00_a", "one thread of a CPU"] == 0.1
    assert table["00_a", "T4"] == 0.5
    assert table["01_b", "one thread of a CPU"] == 1.5
    assert here.minutes("01_b", frame) == "Recorded: 1.5 minutes on one thread of a CPU."
    assert here.minutes("02_c", frame) == ""
    assert report.pages_table(frame)["Minutes"].tolist() == ["0.1", "0.5", "1.5"]


def test_a_page_runs_in_the_profile_of_its_device_and_its_failure_is_a_sentence(monkeypatch):
    ran = []

    def run(command, **options):
        ran.append(" ".join(command))
        code = int("broken" in command[3])
        return subprocess.CompletedProcess(command, code, stderr="a\nNameError: x")

    monkeypatch.setattr(pages.subprocess, "run", run)
    (timing,) = pages.measure(Plan(device="cuda"), Path("05_ablation.ipynb"))
    assert "-p profile gpu" in ran[0]
    assert (timing.kind, set(timing.values)) == ("page 05_ablation", {"seconds", "cpu_s"})
    with pytest.raises(InputError, match="NameError: x"):
        pages.measure(Plan(), Path("broken.ipynb"))


def test_pages_are_measured_when_they_are_named_and_only_then(monkeypatch):
    def names(*parts: str) -> list[str]:
        options = argparse.Namespace(
            workers=0, scheduler=None, device="cpu", profile="quick", release="tiny", parts=parts
        )
        return [task.name for task in measure.tasks(options, PROVENANCE)]

    everything = sorted(pages.parts())
    assert names("pages") == everything
    assert names("00_start") == ["00_start"]
    assert not set(names()) & set(everything)


@pytest.mark.parametrize(("gpu", "profile"), [(True, "gpu"), (False, "quick")])
def test_the_profile_follows_the_hardware(monkeypatch, capsys, gpu, profile):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert here.profile_here("00_start") == profile
    assert (
        f"Here is {'Tesla T4' if gpu else 'no GPU'}: profile {profile}." in capsys.readouterr().out
    )


# The command


def test_the_command_records_and_prints(tmp_path, monkeypatch, capsys):
    things = literal_rows(4.5)
    monkeypatch.setitem(measure.PARTS, "cpu", {"rendering": lambda plan: things})
    assert EXPERIMENT.main(["--out", str(tmp_path)]) == 0
    assert EXPERIMENT.main(["--out", str(tmp_path), "--parts", "rendering"]) == 0
    assert bars.BARS[0].says in capsys.readouterr().out
    frame = rows_file.read_rows(tmp_path / "speed.jsonl")
    assert set(frame["profile"]) == {"quick"}
    metrics = frame[frame["metric"] == "ns_per_voxel"]
    assert len(metrics) == 2 * len(things)  # a second run appends


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--parts", "colour"], "no part colour"), (["--workers", "2"], "machine to themselves")],
)
def test_what_cannot_be_timed_is_refused_in_one_sentence(tmp_path, capsys, arguments, says):
    assert EXPERIMENT.main(["--out", str(tmp_path), *arguments]) == 2
    assert says in capsys.readouterr().err


@torch.inference_mode()
def test_a_small_run_gives_every_arm(monkeypatch):
    plan = Plan(cells=4, cells_integrated=4, rounds_slow=1, rounds_fast=1)
    monkeypatch.setattr(ceilings, "COPIED", 2**12)
    monkeypatch.setattr(ceilings, "SIDE", 32)
    monkeypatch.setattr(rendering.clock, "MOST_CALLS", 2)
    things = {(f.kind, f.arm): f for f in rendering.measure(plan)}
    literal_arms = {arm for kind, arm in things if kind == kinds.LITERAL}
    assert literal_arms == {"naive", PLAIN, EAGER}
    for arm in (PLAIN, EAGER):
        assert things[kinds.LITERAL, arm].values["max_difference"] < 1e-5
    integrated = things[kinds.INTEGRATED, "integrated"].values
    assert integrated["ceiling_share"] >= integrated["copy_share"] > 0
    assert {arm for kind, arm in things if kind == kinds.CEILING} == {"copy", "multiply"}


def test_the_roofline_names_each_float32_renderer_below_the_roof_and_leaves_bfloat16_out(tmp_path):
    rate = {"ns_per_voxel": np.array([50.0]), "flop_per_voxel": 5e3, "bytes_per_voxel": 5.0}
    things = [
        Timing("copy", kinds.CEILING, "", {"gb_per_s": np.array([20.0])}, 1),
        Timing("multiply", kinds.CEILING, "", {"gflop_per_s": np.array([110.0])}, 1),
        Timing("separable, compiled", kinds.LITERAL, "", rate, 96**3),
        Timing("separable, bf16", kinds.LITERAL, "", rate, 96**3),
    ]
    roof = pictures.renderers_figure(recorded(tmp_path / "roof.jsonl", *things)).axes[1]
    names = [text.get_text() for text in roof.texts]
    assert "literal LTE, separable, compiled" in names and "bf16" not in " ".join(names)
    assert roof.lines[0].get_ydata().tolist() == [pytest.approx(100)]
