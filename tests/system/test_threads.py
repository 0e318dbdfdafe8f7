"""Processes of this project start with threads that sleep while they wait."""

import os
import subprocess
import sys

import pytest

SHOW = "import os, sys; print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"


@pytest.mark.parametrize("start", ["import eval", "from medil.cli import main; main()"])
@pytest.mark.parametrize("policy", [None, "active"])
def test_threads_wait_passively_unless_told_otherwise(start, policy):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    code = "import sys; sys.argv = ['medil', '--version']; import atexit\n"
    code += f"atexit.register(lambda: exec({SHOW!r}))\n{start}"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == f"{policy or 'passive'} False"
