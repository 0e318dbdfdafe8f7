"""How a published file comes here: one download, or several side by side.

pooch checks the SHA-256 and puts the whole file in place at once; `medil.data.transfer` is its
downloader. Of several processes that want the same file, one downloads it and the others wait.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from medil.data.schema import PublishedFile
from medil.data.transfer import (
    Patience,
    Progress,
    Stopped,
    Transfer,
    Unreachable,
    check_address,
)
from medil.errors import InputError, WriteError, needs

USUAL = Patience()
LOCK = ".lock"  # what the name of a file ends in that tells other processes to wait
WAIT_S = 0.1  # between looks at a file that another process downloads


def download(
    file: PublishedFile,
    target: Path,
    patience: Patience | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Download a file from its address; only the published bytes are kept.

    Args:
        file: What to download. Its field `plain_http` alone allows an http address.
        target: Where to keep it; a file that exists is left as it is.
        patience: Attempts, pauses and timeouts; `USUAL` when None.
        progress: Called with the bytes of each chunk, and with negative ones when an attempt
            begins anew; a progress bar on a terminal when None.
        stop: Ends the download when it is set.

    Raises:
        InputError: No network, other bytes, no address, or a server that refuses.
        WriteError: The disk refused the write.
    """
    check_address(file)
    with needs("data", "downloads need pooch"):
        import filelock  # noqa: F401
        import pooch
    pooch.get_logger().setLevel(logging.WARNING)
    if progress is None:
        with _bar(file.bytes, Path(file.path).name) as bar:
            return download(file, target, patience, bar.update, stop)
    transfer = Transfer(file, target, patience or USUAL, progress, stop or threading.Event())
    with _alone(transfer):
        while not target.is_file():
            _retrieve(transfer)
    return target


def _retrieve(transfer: Transfer) -> None:
    """Let pooch download and check a file; a resumed download with another hash begins anew."""
    import pooch

    file, target = transfer.file, transfer.target
    known_hash, folder = file.sha256 or None, str(target.parent)
    try:
        pooch.retrieve(file.url, known_hash, target.name, folder, downloader=transfer)
    except InputError:
        raise
    except ValueError as error:  # how pooch says that the hash is another one
        if not transfer.resumed:
            transfer.refuse_bytes(f"expected sha256 {file.sha256[:12]}...", error)
        transfer.resumed = False
    except OSError as error:
        raise WriteError(f"{target} could not be written: {error.strerror or error}.") from error


@contextmanager
def _alone(transfer: Transfer) -> Iterator[None]:
    """Make the folder, and wait while another process downloads the same file."""
    import filelock

    path = transfer.target.with_name(transfer.target.name + LOCK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        while not lock.is_locked:
            transfer.check_stop()
            with suppress(filelock.Timeout):
                lock.acquire(timeout=WAIT_S)
    except OSError as error:
        raise InputError(
            f"the cache folder {path.parent} cannot be made ({error.strerror}); "
            "set MEDIL_CACHE to a folder that you may write to."
        ) from error
    try:
        yield
    finally:
        if not transfer.partial.exists():
            with suppress(OSError):
                path.unlink(missing_ok=True)
        lock.release()


def download_all(
    files: Sequence[tuple[PublishedFile, Path]],
    patience: Patience | None = None,
    workers: int = 4,
) -> dict[str, InputError]:
    """Download files side by side, under one progress bar.

    After one fails, the others go on, unless no server can be reached or the disk is full.

    Args:
        files: Each with the path where to keep it.
        patience: Attempts, pauses and timeouts of each.
        workers: Downloads at a time.

    Returns:
        The error of each file that failed, by its path. Without a network, it is one error for
        all files, under the path of one of them.
    """
    stop, one_at_a_time = threading.Event(), threading.Lock()
    failed: dict[str, InputError] = {}
    total = sum(file.bytes for file, _ in files)
    with _bar(total, f"{len(files)} files") as bar, ThreadPoolExecutor(workers) as pool:

        def progress(count: int) -> None:
            with one_at_a_time:
                bar.update(count)

        running = {pool.submit(download, f, to, patience, progress, stop): f for f, to in files}
        try:
            for done in as_completed(running):
                error = None if done.cancelled() else done.exception()
                if isinstance(error, Stopped) or (stop.is_set() and isinstance(error, Unreachable)):
                    continue
                if isinstance(error, Unreachable | WriteError):  # so would the others
                    stop.set()
                if isinstance(error, InputError):
                    failed[running[done].path] = error
                elif error:
                    raise error
        finally:  # also on Ctrl-C
            stop.set()
            pool.shutdown(cancel_futures=True)
    return failed


def _bar(total_bytes: int, title: str) -> tqdm:
    """A progress bar in bytes, on a terminal only."""
    return tqdm(total=total_bytes or None, unit="B", unit_scale=True, desc=title, disable=None)
