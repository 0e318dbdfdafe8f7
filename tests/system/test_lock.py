"""A folder has one writer at a time, and a killed one holds nothing."""

import multiprocessing
import os
import signal
import time

import pytest

from medil.errors import InputError
from medil.system.lock import HOLDER, only_writer


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
