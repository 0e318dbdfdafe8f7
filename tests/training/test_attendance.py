"""A lost process of a run is named once, and the others end; with threads for processes."""

import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest

from medil.errors import InputError
from medil.training import attendance
from medil.training.attendance import Attendance

BROKEN = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer")


@pytest.fixture
def quick(monkeypatch):
    """Short times; a process that would be ended is noted instead."""
    ended = []
    for name, seconds in (("TICK_S", 0.02), ("ROLL_CALL_S", 0.2), ("SILENT_S", 0.3)):
        monkeypatch.setattr(attendance, name, seconds)
    monkeypatch.setattr(attendance.os, "_exit", ended.append)
    return ended


@pytest.fixture
def store(monkeypatch):
    from torch.distributed import TCPStore, distributed_c10d

    made = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=5))
    monkeypatch.setattr(distributed_c10d, "_get_default_store", lambda: made)
    return made


def run_of(count, bodies, again=lambda: "resume with: medil train --resume -o run"):
    """What each of the ranks raised, whose bodies run in threads; the others never began."""
    barrier, raised = threading.Barrier(len(bodies)), {}

    def one(rank, body):
        fabric = SimpleNamespace(
            world_size=count, global_rank=rank, local_rank=rank, node_rank=0,
            barrier=lambda: barrier.wait(0.5),
        )  # fmt: skip
        try:
            with Attendance(fabric, again):
                body()
        except BaseException as error:
            raised[rank] = error

    threads = [threading.Thread(target=one, args=pair) for pair in bodies.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    return raised


def fail(error, after_s=0.0):
    def body():
        time.sleep(after_s)
        raise error

    return body


def test_ranks_that_end_together_say_nothing(quick, store, capfd):
    assert run_of(2, {0: lambda: time.sleep(0.1), 1: lambda: None}) == {}
    assert quick == [] and capfd.readouterr().err == ""


def test_the_first_rank_that_is_left_names_the_lost_one(quick, store):
    raised = run_of(3, {0: fail(BROKEN, 0.1), 2: fail(BROKEN, 0.1)})
    assert isinstance(raised[0], InputError) and isinstance(raised[2], SystemExit)
    assert "of 3 processes, rank 1 is gone" in str(raised[0])
    assert str(raised[0]).endswith("resume with: medil train --resume -o run.")
    assert raised[2].code == attendance.ENDED


def test_a_rank_that_waits_for_a_lost_one_is_ended(quick, store, capfd):
    run_of(3, {1: lambda: time.sleep(1.0), 2: fail(BROKEN, 0.1)})
    assert quick == [attendance.ENDED]
    assert capfd.readouterr().err.count("rank 0 is gone") == 1  # said by rank 1, which waits


def test_a_rank_that_is_silent_is_found_without_a_broken_connection(quick, store, capfd):
    run_of(2, {0: lambda: time.sleep(1.0)})
    assert quick == [attendance.ENDED] and "rank 1 is gone" in capfd.readouterr().err


def test_what_all_ranks_refuse_is_said_once(quick, store):
    raised = run_of(3, {k: fail(InputError("that folder is a file.")) for k in range(3)})
    kinds = sorted(type(error).__name__ for error in raised.values())
    assert kinds == ["InputError", "SystemExit", "SystemExit"] and quick == []


def test_ranks_that_wait_for_one_that_refused_are_ended_in_silence(quick, store, capfd):
    run_of(2, {0: fail(InputError("the disk is full.")), 1: lambda: time.sleep(0.5)})
    assert quick == [attendance.ENDED] and capfd.readouterr().err == ""


def test_a_single_process_is_not_watched():
    with Attendance(SimpleNamespace(world_size=1, global_rank=0), str) as alone:
        assert alone.thread is None
