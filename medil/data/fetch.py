"""How a published file comes here: one download that resumes, or several side by side.

pooch checks the SHA-256 and puts the whole file in place at once; `Transfer` is its downloader.
What has arrived lies beside the target in a partial file (``NAME.SHA.partial``), and the next
attempt, of this process or of a later one, asks for the rest.

Traps that other fetchers met: a server ignores a range, or answers with one that begins earlier;
it compresses its answer and ignores ranges for that; a redirect leaves https; two processes want
the same file. Credentials of a ``.netrc`` are never sent.
"""

from __future__ import annotations

import email.utils
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from medil.data.schema import PublishedFile
from medil.errors import InputError, WriteError, needs

if TYPE_CHECKING:
    import requests

CHUNK_BYTES = 1 << 16
MUCH_BYTES = 1 << 20  # an attempt that brought so much starts the count of failures anew
REDIRECTS = 5
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers after which a later attempt may succeed
MEANINGS = {401: "a login is needed", 403: "forbidden", 404: "not found", 410: "gone"}
PARTIAL, LOCK = ".partial", ".lock"  # what the names of unfinished downloads end in
WAIT_S = 0.1  # between looks at a file that another process downloads

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Patience:
    """How long to try."""

    attempts: int = 5  # failures in a row before giving up
    backoff_s: float = 0.5  # pause after the first failure; doubles with each
    longest_s: float = 60.0  # a server that asks for a longer pause is given up
    timeout_s: float = 30.0  # without a connection, or without a byte


USUAL = Patience()


class Unreachable(InputError):
    """No server answered: there is no network, or not to this host."""


class Stopped(InputError):
    """The caller asked to stop."""


class Failure(Exception):
    """An attempt failed; a later one may succeed."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        """Keep the reason, and the pause that the server asks for, in seconds."""
        super().__init__(reason)
        self.pause_s = pause_s


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
    with transfer.alone():
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


class Transfer:
    """A downloader for pooch that goes on where the last attempt ended."""

    def __init__(
        self,
        file: PublishedFile,
        target: Path,
        patience: Patience,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        """See `download`."""
        self.file, self.target, self.patience = file, target, patience
        self.progress, self.stop = progress, stop
        self.partial = target.with_name(f"{target.name}.{file.sha256[:12] or 'new'}{PARTIAL}")
        self.resumed = False  # whether an attempt went on from an earlier part
        self.answered = False  # whether any server did
        self.reported = 0  # bytes, to `progress`

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download to a file that pooch names, with as many attempts as `patience` allows."""
        failures = 0
        while True:
            before = self.size()
            try:
                self._attempt(before)
                os.replace(self.partial, output_file)
                return
            except Failure as failure:
                brought_much = self.size() - before >= MUCH_BYTES
                failures = 1 if brought_much else failures + 1
                self._pause(failure, failures)

    def size(self) -> int:
        """Bytes that have arrived."""
        return self.partial.stat().st_size if self.partial.is_file() else 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the folder, and wait while another process downloads the same file."""
        import filelock

        path = self.target.with_name(self.target.name + LOCK)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(path)
            while not lock.is_locked:
                self._check_stop()
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
            if not self.partial.exists():
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            lock.release()

    def _attempt(self, start: int) -> None:
        """Ask for the bytes from `start` on and append them."""
        import requests
        import urllib3

        published = self.file.bytes
        if not self.file.sha256:  # nothing would tell that two parts do not fit
            self._begin_anew()
            start = 0
        if published and start == published:  # complete, but stopped before it was checked
            self.resumed = True
            return
        if published and start > published:
            self._begin_anew()
            start = 0
        host = urlsplit(self.file.url).hostname
        try:
            with self._open(start) as response:
                self.answered = True
                self._write(response, self._beginning(response, start))
                is_whole = response.headers.get("Transfer-Encoding") == "chunked"
        except (requests.exceptions.InvalidURL, requests.exceptions.SSLError) as error:
            reason = "its certificate" if isinstance(error, requests.exceptions.SSLError) else "it"
            raise InputError(f"{self.file.url}: {reason} is not valid.") from error
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
            seconds = f"{self.patience.timeout_s:g} s"
            raise Failure(f"{host} was silent for {seconds}") from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            what = "the connection broke off" if self.answered else f"no connection to {host}"
            raise Failure(what) from error
        if self.size() < published:
            if is_whole:
                self.refuse_bytes(f"{self.size()} bytes, expected {published}")
            raise Failure(f"the connection ended after {self.size()} of {published} bytes")

    def _open(self, start: int) -> requests.Response:
        """The answer to a request, after redirects."""
        import requests

        headers = {"Accept-Encoding": "identity", "User-Agent": "medil"}
        if start:
            headers["Range"] = f"bytes={start}-"
        url = self.file.url
        for _ in range(REDIRECTS + 1):
            response = requests.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=self.patience.timeout_s,
                auth=_no_credentials,
            )
            if not response.is_redirect:
                return response
            response.close()
            url = redirected(url, response.headers["location"], self.file.plain_http)
        raise InputError(f"{self.file.url} redirects more than {REDIRECTS} times.")

    def _beginning(self, response: requests.Response, start: int) -> int:
        """The position in the file of the first byte of an answer."""
        status = response.status_code
        if status == 416:  # the range lies outside the file
            self._begin_anew()
            raise Failure("the server refused to send the rest")
        if status in BUSY:
            pause_s = seconds_to_wait(response.headers.get("Retry-After", ""))
            raise Failure(f"the server answered {status}", pause_s)
        if status not in (200, 206):
            meaning = f" ({MEANINGS[status]})" if status in MEANINGS else ""
            raise InputError(f"{self.file.url} answered {status}{meaning}; nothing was kept.")
        header = response.headers.get("Content-Range", "")
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header.strip())
        beginning = int(span[1]) if span else 0
        if beginning > start or (status == 206 and not span):
            self._begin_anew()
            raise Failure("the server sent another part than the one asked for")
        total = span[2] if span else response.headers.get("Content-Length", "")
        if self.file.bytes and total.isdecimal() and int(total) != self.file.bytes:
            self.refuse_bytes(f"{int(total)} bytes, expected {self.file.bytes}")
        self.resumed = self.resumed or beginning > 0
        return beginning

    def _write(self, response: requests.Response, position: int) -> None:
        """Write the bytes of an answer at their position in the partial file."""
        self.partial.touch()
        with self.partial.open("r+b") as partial:
            partial.truncate(position)
            partial.seek(position)
            self._report(position)
            for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                self._check_stop()
                position += len(chunk)
                if 0 < self.file.bytes < position:
                    self.refuse_bytes(f"more than {self.file.bytes} bytes")
                partial.write(chunk)
                self._report(position)

    def refuse_bytes(self, difference: str, cause: Exception | None = None) -> NoReturn:
        """Keep nothing and say that the server has another file."""
        self._begin_anew()
        raise InputError(
            f"{self.file.url} gave other bytes than published ({difference}); nothing was kept."
        ) from cause

    def _begin_anew(self) -> None:
        self.partial.unlink(missing_ok=True)
        self._report(0)

    def _report(self, position: int) -> None:
        self.progress(position - self.reported)
        self.reported = position

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Stopped(f"the download of {self.file.path} was stopped.")

    def _pause(self, failure: Failure, failures: int) -> None:
        """Wait before the next attempt, or give up in one sentence.

        Without any answer there is one more attempt and no other: there may be no network.
        """
        patience = self.patience
        allowed = patience.attempts if self.answered else min(2, patience.attempts)
        pause_s = max(failure.pause_s, patience.backoff_s * 2 ** (failures - 1))
        if failures < allowed and pause_s <= patience.longest_s:
            self.stop.wait(pause_s)
            self._check_stop()
            return
        if not self.answered:
            raise Unreachable(
                f"{self.file.path} could not be downloaded ({failure}): connect to the network "
                "and try again, or set MEDIL_DATA_MIRROR to a folder that holds it."
            ) from failure
        asked = f" and asked to wait {failure.pause_s:.0f} s" if failure.pause_s else ""
        kept = f"; the next download goes on from {self.partial}" if self.size() else ""
        raise InputError(
            f"{self.file.path} could not be downloaded ({failure}{asked}){kept}; try again later."
        ) from failure


def check_address(file: PublishedFile) -> None:
    """Refuse a file without an address, and an address that is neither https nor allowed.

    Raises:
        InputError: What is wrong, and how else to get the file.
    """
    if not file.url:
        how = f": {file.how}" if file.how else ""
        raise InputError(
            f"{file.path} has no address to download from{how}; put it into the folder that "
            "MEDIL_DATA_MIRROR names."
        )
    if not _is_allowed(file.url, file.plain_http):
        raise InputError(f"{file.path} could not be downloaded: {file.url} is not https.")


def redirected(url: str, location: str, plain_http: bool) -> str:
    """The address that a redirect leads to.

    Raises:
        InputError: It leads to http, other than from http to http on the same, allowed host.

    Example:
        >>> redirected("https://example.org/a/b.gz", "/c.gz", plain_http=False)
        'https://example.org/c.gz'
    """
    found = urljoin(url, location)
    was, is_now = urlsplit(url), urlsplit(found)
    stays = was.scheme == "http" and was.hostname == is_now.hostname
    if not _is_allowed(found, plain_http and stays):
        raise InputError(f"{url} redirects to {found}, which is not https; nothing was kept.")
    return found


def _is_allowed(url: str, plain_http: bool) -> bool:
    parts = urlsplit(url)
    return bool(parts.hostname) and parts.scheme in (
        ("https", "http") if plain_http else ("https",)
    )


def seconds_to_wait(header: str) -> float:
    """The pause that a header Retry-After asks for: seconds or a date; 0 if it is neither.

    Example:
        >>> seconds_to_wait("120"), seconds_to_wait("soon")
        (120.0, 0.0)
    """
    if header.strip().isdecimal():
        return float(header)
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    return 0.0


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Authentication that adds nothing, so that requests does not look into a .netrc."""
    return request
