"""Programs end with the process that started them."""

import subprocess
import sys

import psutil

STARTER = """
import subprocess, sys, time
from medil.system.children import tied
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], **tied())
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_tied_program_ends_with_its_killed_starter():
    command = [sys.executable, "-c", STARTER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        child = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
        psutil.wait_procs([child], timeout=10)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
