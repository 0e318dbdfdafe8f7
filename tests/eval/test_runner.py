"""Experiments run once, in parallel or not, and lose no more than the task they were in."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

from eval import rows, rows_file, runner
from medil.errors import InputError

HASH = "0" * 64


def measured(subject: str, value: float, note: str = "") -> list[rows.Row]:
    """Two rows about a subject, as an experiment would give; says in a file that it ran."""
    if note:
        with open(note, "a") as file:
            file.write(f"{subject} {os.getpid()}\n")
    about = rows.Measurement("demo", subject, "arm", "as it is", HASH, HASH, rows.NO_WEIGHTS)
    provenance = rows.Provenance("c", False, 0, "cpu", 1, {"python": "3"}, "quick")
    values, units = {"psnr": value, "ssim": value / 100}, {"psnr": "dB", "ssim": "1"}
    return about.rows(values, units, rows.Sampling("1", "1", 8, 64), 0.1, provenance)


def task(subject: str, value: float, note: str = "") -> runner.Task:
    wanted = frozenset(row.identity for row in measured(subject, value, ""))
    return runner.Task(subject, wanted, partial(measured, subject, value, note))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_recorded_is_not_measured_again(tmp_path, workers):
    pytest.importorskip("distributed")
    path, note = tmp_path / "demo.jsonl", str(tmp_path / "ran.txt")
    first = [task(s, v, note) for s, v in (("a", 30.0), ("b", 31.0))]
    assert runner.run(first, path, workers) == 4
    assert runner.run(first, path, workers) == 0
    assert runner.run([*first, task("c", 32.0, note)], path, 0) == 2
    ran = [line.split() for line in Path(note).read_text().splitlines()]
    assert sorted(who for who, _ in ran) == ["a", "b", "c"]
    here = {pid for who, pid in ran if who != "c"} == {str(os.getpid())}
    assert here == (workers == 0)
    frame = rows_file.read_rows(path).set_index(["subject", "metric"])["value"]
    assert frame["b", "psnr"] == 31.0 and frame["c", "ssim"] == 0.32


def test_a_task_recorded_in_part_adds_only_what_is_missing(tmp_path):
    path = tmp_path / "demo.jsonl"
    rows_file.append_rows(path, measured("a", 30.0)[:1])
    assert runner.run([task("a", 30.0)], path, 0) == 1
    assert len(rows_file.read_rows(path)) == 2


def refuse() -> list[rows.Row]:
    raise InputError("this scan is constant.")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_task_s_refusal_comes_through_and_the_others_stay(tmp_path, workers):
    pytest.importorskip("distributed")
    path = tmp_path / "demo.jsonl"
    bad = runner.Task("bad", frozenset({("x",)}), refuse)
    with pytest.raises(InputError, match=r"this scan is constant\."):
        runner.run([task("a", 30.0), bad], path, workers)
    assert set(rows_file.read_rows(path)["subject"]) == {"a"}


def test_no_scheduler_is_said_in_a_sentence(tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="no Dask scheduler answers at tcp://"):
        runner.run([task("a", 1.0)], tmp_path / "demo.jsonl", scheduler="tcp://127.0.0.1:9")


def test_tasks_run_on_another_scheduler_s_workers(tmp_path):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
    with cluster:
        note = str(tmp_path / "ran.txt")
        address = cluster.scheduler_address
        assert runner.run([task("a", 1.0, note)], tmp_path / "r.jsonl", scheduler=address) == 2
    assert Path(note).read_text().split()[1] != str(os.getpid())


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(tmp_path):
    script = tmp_path / "experiment.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            from functools import partial
            from pathlib import Path
            from eval import runner
            from tests.eval.test_runner import measured, task

            def slow(subject, value, wait_s):
                time.sleep(wait_s)
                return measured(subject, value)

            wait_s, out = float(sys.argv[1]), Path(sys.argv[2])
            plain = [task(f"s{n}", 20.0 + n) for n in range(4)]
            todo = [runner.Task(t.name, t.wanted, partial(slow, t.name, 20.0 + n, wait_s * n))
                    for n, t in enumerate(plain)]
            runner.run(todo, out, 0)
            """
        )
    )
    path, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    command = [sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    running = subprocess.Popen([*command, "60", str(path)], env=environment)
    while not path.is_file() or not path.stat().st_size:
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert len(rows_file.read_rows(path)) == 2  # the first task's, which did not wait
    for file in (path, whole):
        subprocess.run([*command, "0", str(file)], env=environment, check=True)
    what = ["subject", "metric", "value"]
    first, second = (
        rows_file.read_rows(file)[what].sort_values(what[:2]) for file in (path, whole)
    )
    assert first.to_numpy().tolist() == second.to_numpy().tolist() and len(first) == 8


def test_bad_command_lines_are_one_sentence(capsys):
    options = argparse.ArgumentParser()
    options.add_argument("--workers", type=int)
    assert runner.command(lambda o: None, options, ["--workers", "-1"]) == 2
    assert "cannot be -1" in capsys.readouterr().err

    def interrupted(_):
        raise KeyboardInterrupt

    assert runner.command(interrupted, options, []) == 130


def test_an_unknown_part_is_refused_with_the_parts_that_there_are(capsys):
    parser = argparse.ArgumentParser()
    runner.parts_option(parser, {"first": 1, "second": 2})
    assert parser.parse_args([]).parts == ["first", "second"]
    assert parser.parse_args(["--parts", "second"]).parts == ["second"]
    with pytest.raises(SystemExit) as refused:
        parser.parse_args(["--parts", "third"])
    assert refused.value.code == 2 and "first" in capsys.readouterr().err
