"""Work shared out to processes: every piece once, what fails is raised."""

import multiprocessing
import os
import time
from functools import partial

import psutil
import pytest

from medil.errors import InputError
from medil.system import workers
from medil.system.workers import grouped, process_count, results, share_out


def write(folder, group):
    for number in group:
        (folder / f"{number}").write_text(str(os.getpid()))


def fail(group):
    raise ValueError(f"piece {group[0]}")


def test_groups_hold_every_number_once_and_one_remainder_each():
    numbers = [9, 2, 4, 7, 0, 5, 11]
    groups = grouped(numbers, 3, processes=5)
    assert sorted(k for group in groups for k in group) == sorted(numbers)
    assert all(len({k % 3 for k in group}) == 1 for group in groups)
    assert len(groups) >= 5 and grouped([], 3) == []


def test_pieces_are_worked_on_by_other_processes_and_few_of_them_by_this_one(tmp_path):
    share_out(partial(write, tmp_path), [[0, 1], [2, 3]], 2, "pieces")
    assert {p.name for p in tmp_path.iterdir()} == {"0", "1", "2", "3"}
    assert all(p.read_text() != str(os.getpid()) for p in tmp_path.iterdir())
    share_out(partial(write, tmp_path), [[4], [5]], 2, "pieces")
    assert (tmp_path / "5").read_text() == str(os.getpid())


def test_what_fails_in_a_process_is_raised_here():
    with pytest.raises(ValueError, match=r"piece [01]"):
        share_out(fail, [[0, 2], [1, 3]], 2, "pieces")


def note_and_wait(folder, group):
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(60)


def share_out_waiting(folder):
    share_out(partial(note_and_wait, folder), [[0, 1], [2, 3]], 2, "pieces")


def test_processes_end_with_the_one_that_started_them(tmp_path):
    parent = multiprocessing.get_context("spawn").Process(target=share_out_waiting, args=[tmp_path])
    parent.start()
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    children = [psutil.Process(int(path.stem)) for path in tmp_path.glob("*.pid")]
    parent.kill()
    parent.join()
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert len(gone) == 2 and not alive


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_memory_at_hand_bounds_the_processes(monkeypatch):
    monkeypatch.setattr(workers, "free_memory_bytes", lambda: 2.5e9)
    assert process_count(bytes_each=2e9) == 1 and process_count(bytes_each=1e12) == 1
    monkeypatch.setattr(workers, "free_memory_bytes", lambda: 1e15)
    assert process_count() >= 1


def square_or_die(name, number):
    if number < 0:
        os._exit(3)
    return number**2


def test_results_come_with_the_numbers_of_their_tasks():
    tasks = [(f"n{k}", k) for k in range(6)]
    found = dict(results(square_or_die, tasks, 2, "squares"))
    assert found == {k: k**2 for k in range(6)}


def test_a_process_that_dies_is_one_sentence():
    with pytest.raises(InputError, match="a process died, perhaps because the memory ran out"):
        list(results(square_or_die, [("a", -1), ("b", 1)], 2, "squares"))
