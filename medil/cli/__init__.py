"""The command `medil`: runs a verb and turns every bad input into one sentence, exit 2.

Nothing heavy is imported before a verb needs it, so `medil --help` answers at once.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medil.errors import InputError, is_out_of_memory, of_system, printable
from medil.system.memory import check_address_space, give_back_freed_blocks
from medil.system.threads import wait_passively

if TYPE_CHECKING:
    import click

BAD_INPUT, STOPPED, TERMINATED = 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run a verb (this process's arguments when None), then leave with its exit code.

    Raises:
        SystemExit: Always: 0 done, 2 bad input, 130 Ctrl-C.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that cleaning up happens
    give_back_freed_blocks()
    wait_passively()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run a verb and return its exit code; whatever is raised from here is a bug."""
    try:
        check_address_space()
        import click
    except InputError as error:
        return _say(str(error))
    except ImportError:
        return _say("the command line needs click; install it with: pip install 'medil-book[cli]'.")
    from medil.cli.images import medil

    _hush_libraries()
    try:
        code = medil.main(list(arguments) or ["--help"], prog_name="medil", standalone_mode=False)
    except (InputError, click.ClickException) as error:
        if isinstance(error, click.ClickException):
            return _say(error.format_message())
        return _say(with_options(str(error), medil))
    except (click.Abort, KeyboardInterrupt):
        return _say("stopped; nothing half-written was kept.", STOPPED)
    except OSError as error:  # a full or broken disk is no bug
        return _say(of_system(error))
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            return _say("the memory ran out; choose larger voxels or a smaller image.")
        raise
    return code if isinstance(code, int) else 0


def with_options(text: str, group: click.Group) -> str:
    """Replace parameters in a library error, such as `force=True`, by options (--force)."""
    flags = {
        option.name: max(option.opts, key=len)
        for verb in group.commands.values()
        for option in verb.params
    }

    def option(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in flags:
            return match[0]
        return flags[name] if value in (None, "True") else f"{flags[name]} {value}"

    return re.sub(r"`(\w+)(?:=([^`]+))?`", option, text)


def _say(text: str, code: int = BAD_INPUT) -> int:
    print("medil:", printable(text), file=sys.stderr)
    return code


def _hush_libraries() -> None:
    """Keep libraries' remarks off stderr, where our one sentence belongs."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is imported
    warnings.simplefilter("ignore")
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
