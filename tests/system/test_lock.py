"""A folder has one writer at a time, and a killed one holds nothing."""

import multiprocessing
import os
import signal
import time

import pytest

from medil.errors import InputError
from medil.system.lock import HOLDER, only_writer
from medil.volume import save
from tests.images import head


def hold(folder, ready):
    with only_writer(folder, "medil store"):
        ready.set()
        time.sleep(60)


def test_a_held_folder_names_its_holder_and_a_killed_one_is_free(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    other = spawn.Process(target=hold, args=(tmp_path, ready))
    other.start()
    try:
        assert ready.wait(60)
        told = f"in use by medil store, process {other.pid} on "
        with pytest.raises(InputError, match=told), only_writer(tmp_path, "medil store"):
            pass
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    with only_writer(tmp_path, "medil store"):  # the note of the killed one is written over
        assert (tmp_path / HOLDER).read_text().startswith(f"medil store, process {os.getpid()} ")
    assert not list(tmp_path.iterdir())


def store(scan, out):
    pytest.importorskip("zarr", reason="zarr (extra store) is not installed")
    from medil.training.build_store import build_store

    build_store([scan], out)


def train(scan, out):
    pytest.importorskip("lightning_fabric", reason="lightning-fabric (extra train) is missing")
    from tests.run_training import run

    run(out, steps=1)


def preprocess(scan, out):
    from medil.preprocess import pipeline

    pipeline.preprocess([], out, pipeline.Steps("given", bias=False, align=False))


def evaluate(scan, out):
    pytest.importorskip("pandas", reason="pandas (extra eval) is not installed")
    from eval.evaluate import EXPERIMENT, measure

    measure.prepare(out, force=False)
    arguments = [str(scan), "--out", str(out)]
    measure.run(EXPERIMENT.parser().parse_args(arguments))


@pytest.mark.parametrize("fill", [store, train, preprocess, evaluate])
def test_a_folder_that_another_process_fills_is_refused(tmp_path, fill):
    scan, out = save(head(), tmp_path / "a.nii.gz"), tmp_path / "out"
    out.mkdir()
    with only_writer(out, "medil"), pytest.raises(InputError, match="in use by medil, process"):
        fill(scan, out)
