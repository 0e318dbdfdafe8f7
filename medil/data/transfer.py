"""One HTTP download that goes on where it stopped, whatever the server does.

What has arrived lies in a partial file, and the next attempt, of this process or of a later one,
asks for the rest. Nothing here trusts the server: the caller checks the hash.

Traps that other fetchers met: a server ignores a range, or answers with one that begins earlier;
it compresses its answer and ignores ranges for that; a redirect leaves https. Credentials of a
``.netrc`` are never sent.
"""

from __future__ import annotations

import email.utils
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urljoin, urlsplit

from medil.data.schema import PublishedFile
from medil.errors import InputError

if TYPE_CHECKING:
    import requests

CHUNK_BYTES = 1 << 16
MUCH_BYTES = 1 << 20  # an attempt that brought so much starts the count of failures anew
REDIRECTS = 5
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers after which a later attempt may succeed
MEANINGS = {401: "a login is needed", 403: "forbidden", 404: "not found", 410: "gone"}
PARTIAL = ".partial"  # what the names of unfinished downloads end in

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Patience:
    """How long to try."""

    attempts: int = 5  # failures in a row before giving up
    backoff_s: float = 0.5  # pause after the first failure; doubles with each
    longest_s: float = 60.0  # a server that asks for a longer pause is given up
    timeout_s: float = 30.0  # without a connection, or without a byte


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

    def _attempt(self, start: int) -> None:
        """Ask for the bytes from `start` on and write them."""
        published = self.file.bytes
        if not self.file.sha256 or 0 < published < start:  # nothing would tell, or it is too long
            self._begin_anew()
            start = 0
        if start and start == published:  # stopped before it was checked
            self.resumed = True
            return
        with self._network_errors(), self._open(start) as response:
            self.answered = True
            self._write(response, self._beginning(response, start))
            is_whole = response.headers.get("Transfer-Encoding") == "chunked"
        if self.size() < published:
            if is_whole:
                self.refuse_bytes(f"{self.size()} bytes, expected {published}")
            raise Failure(f"the connection ended after {self.size()} of {published} bytes")

    @contextmanager
    def _network_errors(self) -> Iterator[None]:
        """What the network libraries raise, as a failure of this attempt or as a final error."""
        import requests
        import urllib3

        host = urlsplit(self.file.url).hostname
        try:
            yield
        except InputError:
            raise
        except requests.exceptions.SSLError as error:
            raise InputError(f"{self.file.url}: its certificate is not valid.") from error
        except requests.exceptions.InvalidURL as error:
            raise InputError(f"{self.file.url} is not a valid address.") from error
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise Failure(f"{host} was silent for {self.patience.timeout_s:g} s") from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            what = "the connection broke off" if self.answered else f"no connection to {host}"
            raise Failure(what) from error
        except ValueError as error:  # of a header
            raise InputError(f"the answer of {self.file.url} is not valid: {error}.") from error

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
            raise InputError(f"{self.file.url} answered {status}{meaning}.")
        header = response.headers.get("Content-Range", "")
        span = re.fullmatch(r"bytes (\d{1,15})-\d+/(\d{1,15}|\*)", header.strip())
        beginning = int(span[1]) if span else 0
        if beginning > start or (status == 206 and not span):
            self._begin_anew()
            raise Failure("the server sent another part than the one asked for")
        total = span[2] if span else response.headers.get("Content-Length", "")
        if self.file.bytes and re.fullmatch(r"\d{1,15}", total) and int(total) != self.file.bytes:
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
                self.check_stop()
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

    def check_stop(self) -> None:
        """End the download if the caller asked for it."""
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
            self.check_stop()
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
        raise InputError(f"{url} redirects to {found}, which is not https.")
    return found


def _is_allowed(url: str, plain_http: bool) -> bool:
    schemes = ("https", "http") if plain_http else ("https",)
    parts = urlsplit(url)
    return bool(parts.hostname) and parts.scheme in schemes


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
