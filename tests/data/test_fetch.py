"""`medil.data.fetch` and `transfer`: from servers that misbehave, the published file or nothing."""

from __future__ import annotations

import hashlib
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from medil.data.fetch import download, download_all
from medil.data.schema import PublishedFile
from medil.data.transfer import (
    Patience,
    Stopped,
    Transfer,
    Unreachable,
    redirected,
    seconds_to_wait,
)
from medil.errors import InputError, WriteError
from tests.web import Web, begin, part, running, stalled, status, truncated, whole

CONTENT = random.Random(3).randbytes(200_000)
SHORT = Patience(attempts=3, backoff_s=0.001, longest_s=30, timeout_s=0.15)


@pytest.fixture
def web(monkeypatch) -> Iterator[Web]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running() as server:
        yield server


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "cache" / "made" / "up.bin"


def published(url: str, content: bytes = CONTENT) -> PublishedFile:
    digest = hashlib.sha256(content).hexdigest()
    return PublishedFile("made/up.bin", url, digest, len(content), "CC0", plain_http=True)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def partial_of(target: Path, content: bytes = CONTENT) -> Path:
    return target.with_name(f"up.bin.{hashlib.sha256(content).hexdigest()[:12]}.partial")


def test_a_file_arrives_whole_and_alone(web, target):
    told: list[int] = []
    file = published(web.serve("/a", part(CONTENT)))
    assert download(file, target, SHORT, told.append) == target
    assert target.read_bytes() == CONTENT and sum(told) == len(CONTENT)
    assert files_in(target.parents[1]) == ["up.bin"]
    assert download(file, target, SHORT) == target and len(web.requests) == 1
    assert target.stat().st_mode & 0o044  # others may read a shared cache


@pytest.mark.parametrize(
    "broken",
    [
        truncated(CONTENT, 70_000),
        truncated(CONTENT, 0),
        stalled(CONTENT, 140_000),
        status(503),
        status(429, Retry_After=0),
        status(500),
    ],
    ids=["truncated", "empty", "stalled", "503", "429", "500"],
)
def test_a_second_attempt_completes_what_the_first_began(web, target, broken):
    file = published(web.serve("/a", broken, part(CONTENT)))
    download(file, target, SHORT, lambda _: None)
    assert target.read_bytes() == CONTENT and len(web.requests) == 2
    assert files_in(target.parents[1]) == ["up.bin"]


def test_the_second_attempt_asks_for_the_rest_alone(web, target):
    download(published(web.serve("/a", truncated(CONTENT, 70_000), part(CONTENT))), target, SHORT)
    assert web.ranges() == ["", "bytes=70000-"] and target.read_bytes() == CONTENT


def test_an_interrupted_download_goes_on_in_a_later_process(web, target):
    file = published(web.serve("/a", truncated(CONTENT, 70_000)))
    with pytest.raises(InputError, match=r"goes on from .*\.partial; try again later"):
        download(file, target, replace(SHORT, attempts=1))
    assert partial_of(target).read_bytes() == CONTENT[:70_000] and not target.exists()
    web.serve("/a", part(CONTENT))
    told: list[int] = []
    download(file, target, SHORT, told.append)
    assert target.read_bytes() == CONTENT and web.ranges()[-1] == "bytes=70000-"
    assert told[0] == 70_000 and sum(told) == len(CONTENT)
    assert files_in(target.parents[1]) == ["up.bin"]


@pytest.mark.parametrize(
    "answer",
    [whole(CONTENT), part(CONTENT, earlier=1000)],
    ids=["the whole file", "an earlier range"],
)
def test_a_server_that_ignores_the_range_does_not_spoil_the_file(web, target, answer):
    download(published(web.serve("/a", truncated(CONTENT, 70_000), answer)), target, SHORT)
    assert target.read_bytes() == CONTENT and len(web.requests) == 2


def test_a_range_that_is_sent_as_200_is_read_where_it_belongs(web, target):
    def odd(request):
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        begin(request, 200, Content_Range=place, Content_Length=len(CONTENT) - start)
        request.wfile.write(CONTENT[start:])

    download(published(web.serve("/a", truncated(CONTENT, 70_000), odd)), target, SHORT)
    assert target.read_bytes() == CONTENT


def test_a_later_range_and_a_refused_one_begin_anew(web, target):
    late = status(206, Content_Range=f"bytes 90000-199999/{len(CONTENT)}")
    for answer in (late, status(416)):
        first = truncated(CONTENT, 70_000)
        file = published(web.serve("/a", first, answer, part(CONTENT)))
        download(file, target, SHORT)
        assert target.read_bytes() == CONTENT and web.ranges()[-3:][0] == web.ranges()[-1] == ""
        target.unlink()


def test_a_damaged_partial_is_noticed_and_begun_anew(web, target):
    target.parent.mkdir(parents=True)
    partial_of(target).write_bytes(b"x" * 70_000)
    download(published(web.serve("/a", part(CONTENT))), target, SHORT)
    assert web.ranges() == ["bytes=70000-", ""] and target.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_a_partial_as_long_as_the_file_is_checked_and_replaced(web, target, size):
    target.parent.mkdir(parents=True)
    partial_of(target).write_bytes(b"x" * size)
    download(published(web.serve("/a", part(CONTENT))), target, SHORT)
    assert web.ranges() == [""] and target.read_bytes() == CONTENT


def test_a_complete_partial_needs_no_request(web, target):
    target.parent.mkdir(parents=True)
    partial_of(target).write_bytes(CONTENT)
    download(published(web.serve("/a", status(404))), target, SHORT)
    assert web.requests == [] and target.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) - 1, len(CONTENT) + 1, 0])
def test_wrong_bytes_are_refused_and_nothing_is_kept(web, target, size):
    file = published(web.serve("/a", whole(b"x" * size)))
    with pytest.raises(InputError, match="gave other bytes than published"):
        download(file, target, SHORT)
    assert files_in(target.parents[1]) == [] and len(web.requests) == 1


def test_a_page_of_a_network_that_wants_a_login_is_refused_at_once(web, target):
    def chunked(request):
        request.protocol_version = "HTTP/1.1"
        begin(request, 200, Transfer_Encoding="chunked")
        request.wfile.write(b"5\r\nlogin\r\n0\r\n\r\n")

    with pytest.raises(InputError, match=r"gave other bytes than published .5 bytes, expected"):
        download(published(web.serve("/a", chunked)), target, SHORT)
    assert len(web.requests) == 1 and files_in(target.parents[1]) == []


def test_an_endless_answer_is_cut_at_the_published_size(web, target):
    def endless(request):
        begin(request, 200)
        while not request.seen.ended.is_set():
            request.wfile.write(bytes(65536))

    file = published(web.serve("/a", endless))
    with pytest.raises(InputError, match="more than 200000 bytes"):
        download(file, target, replace(SHORT, timeout_s=2))
    assert files_in(target.parents[1]) == []


def test_a_file_without_a_known_hash_is_never_pieced_together(web, target):
    file = replace(published(web.serve("/a", truncated(CONTENT, 9), part(CONTENT))), sha256="")
    download(file, target, SHORT)
    assert web.ranges() == ["", ""] and target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("code", "meaning"), [(404, "404 .not found"), (403, "403 .forbidden"), (204, "204.")]
)
def test_a_final_refusal_is_one_sentence_after_one_request(web, target, code, meaning):
    file = published(web.serve("/a", status(code)))
    with pytest.raises(InputError, match=f"answered {meaning}"):
        download(file, target, SHORT)
    assert len(web.requests) == 1 and files_in(target.parents[1]) == []


def test_giving_up_counts_the_attempts_and_the_pauses_double(web, target, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, s=None: pauses.append(s))
    file = published(web.serve("/a", status(503)))
    with pytest.raises(InputError, match=r"could not be downloaded \(the server answered 503\)"):
        download(file, target, Patience(attempts=4, backoff_s=0.5))
    assert [p for p in pauses if p] == [0.5, 1.0, 2.0] and len(web.requests) == 4


def test_retry_after_sets_the_pause(web, target, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(Transfer, "check_stop", lambda self: None)
    stop = threading.Event()
    stop.wait = pauses.append  # type: ignore[method-assign]
    file = published(web.serve("/a", status(429, Retry_After=7), part(CONTENT)))
    download(file, target, SHORT, lambda _: None, stop)
    assert pauses == [7.0] and target.read_bytes() == CONTENT


def test_a_server_that_asks_for_an_hour_is_given_up_at_once(web, target):
    file = published(web.serve("/a", status(429, Retry_After=3600)))
    with pytest.raises(InputError, match=r"answered 429 and asked to wait 3600 s\)"):
        download(file, target, SHORT)
    assert len(web.requests) == 1


def test_retry_after_may_be_a_date():
    assert 50 < seconds_to_wait(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert seconds_to_wait(formatdate(0)) == seconds_to_wait("") == seconds_to_wait("-5") == 0


def test_a_stall_ends_after_the_timeout(web, target):
    file = published(web.serve("/a", stalled(CONTENT, 0)))
    began = time.monotonic()
    with pytest.raises(InputError, match=r"127\.0\.0\.1 was silent for 0\.15 s"):
        download(file, target, replace(SHORT, attempts=2))
    assert time.monotonic() - began < 2 and len(web.requests) == 2


def test_redirects_are_followed_and_keep_the_range(web, target):
    web.serve("/b", truncated(CONTENT, 70_000), part(CONTENT))
    download(published(web.serve("/a", status(302, Location="/b"))), target, SHORT)
    assert target.read_bytes() == CONTENT
    assert web.requests[-2:] == [("/a", "bytes=70000-"), ("/b", "bytes=70000-")]


def test_a_circle_of_redirects_is_one_sentence(web, target):
    file = published(web.serve("/a", status(301, Location="/a")))
    with pytest.raises(InputError, match="redirects more than 5 times"):
        download(file, target, SHORT)


@pytest.mark.parametrize(
    ("url", "location", "plain_http"),
    [
        ("https://example.org/a", "http://example.org/a", False),
        ("https://example.org/a", "http://example.org/a", True),
        ("http://example.org/a", "http://example.com/a", True),
        ("https://example.org/a", "file:///etc/passwd", True),
        ("https://example.org/a", "ftp://example.org/a", False),
        ("http://example.org/a", "http://example.org/b", False),
    ],
)
def test_a_redirect_never_leaves_https(url, location, plain_http):
    with pytest.raises(InputError, match=r"redirects to .* which is not https"):
        redirected(url, location, plain_http)


def test_a_redirect_to_no_address_is_one_sentence(web, target):
    file = published(web.serve("/a", status(302, Location="https://[")))
    with pytest.raises(InputError, match=r"the answer of .* is not valid"):
        download(file, target, SHORT)


def test_absurd_headers_are_no_range_and_no_size(web, target):
    digits = "9" * 5000
    absurd = status(206, Content_Range=f"bytes {digits}-{digits}/{digits}", Retry_After=digits)
    download(published(web.serve("/a", absurd, part(CONTENT))), target, SHORT)
    assert target.read_bytes() == CONTENT
    busy = published(web.serve("/b", status(429, Retry_After=digits)))
    with pytest.raises(InputError, match="answered 429"):
        download(busy, target.with_name("other"), SHORT)


def test_a_redirect_may_lead_to_https():
    assert redirected("https://a.org/x", "//b.org/y", False) == "https://b.org/y"
    assert redirected("http://a.org/x", "https://b.org/y", True) == "https://b.org/y"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a.org/b", "example.org/b", "https:"])
def test_other_addresses_are_refused_before_anything_happens(target, url):
    with pytest.raises(InputError, match="is not https"):
        download(published(url), target, SHORT)
    assert not target.parent.exists()


def test_plain_http_must_be_allowed_by_the_file(web, target):
    file = replace(published(web.serve("/a", part(CONTENT))), plain_http=False)
    with pytest.raises(InputError, match="is not https"):
        download(file, target, SHORT)
    assert web.requests == []


def test_a_file_without_an_address_says_how_to_get_it(target):
    with pytest.raises(InputError, match=r"no address .*: inside a book; .*MEDIL_DATA_MIRROR"):
        download(replace(published(""), how="inside a book"), target)


def unreachable() -> str:
    """An address of this computer at which nobody listens."""
    with running() as web:
        return web.address


def test_without_a_server_one_sentence_says_the_two_ways_out(target):
    with pytest.raises(Unreachable, match=r"no connection to 127.*network.*MEDIL_DATA_MIRROR"):
        download(published(unreachable() + "/a"), target, SHORT)
    assert files_in(target.parents[1]) == []


def test_netrc_and_compression_are_not_used(web, target, tmp_path, monkeypatch):
    seen: list[dict] = []
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def answer(request):
        seen.append(dict(request.headers))
        whole(CONTENT)(request)

    download(published(web.serve("/a", answer)), target, SHORT)
    assert "Authorization" not in seen[0] and seen[0]["Accept-Encoding"] == "identity"


def test_ctrl_c_leaves_the_partial_alone_and_the_next_call_goes_on(web, target):
    def press(count):
        if count:
            raise KeyboardInterrupt

    file = published(web.serve("/a", part(CONTENT)))
    with pytest.raises(KeyboardInterrupt):
        download(file, target, SHORT, press)
    assert all(name.endswith((".partial", ".lock")) for name in files_in(target.parents[1]))
    download(file, target, SHORT, lambda _: None)
    assert target.read_bytes() == CONTENT and web.ranges()[-1] == "bytes=65536-"


def test_a_full_disk_is_one_sentence(web, target, monkeypatch):
    def full(self, position):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Transfer, "_report", full)
    with pytest.raises(WriteError, match="could not be written: No space left on device"):
        download(published(web.serve("/a", part(CONTENT))), target, SHORT)
    assert not target.exists()


def test_without_pooch_the_extra_is_named(target, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r"pip install 'medil-book\[data\]'"):
        download(published("https://example.org/a"), target)


def test_two_downloads_of_one_file_wait_for_each_other(web, target):
    held = threading.Event()

    def slow(request):
        held.wait(2)
        whole(CONTENT)(request)

    file = published(web.serve("/a", slow))
    patient = replace(SHORT, timeout_s=5)
    threads = [
        threading.Thread(target=download, args=(file, target, patient, lambda _: None))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    while not web.requests:
        time.sleep(0.005)
    held.set()
    for thread in threads:
        thread.join(5)
    assert target.read_bytes() == CONTENT and len(web.requests) == 1
    assert files_in(target.parents[1]) == ["up.bin"]


def test_downloads_run_side_by_side(web, tmp_path):
    everyone = threading.Barrier(3, timeout=2)

    def together(request):
        everyone.wait()
        whole(CONTENT)(request)

    tasks = [(published(web.serve(f"/{n}", together)), tmp_path / f"{n}") for n in range(3)]
    assert download_all(tasks, replace(SHORT, timeout_s=3), workers=3) == {}
    assert files_in(tmp_path) == ["0", "1", "2"]


def test_one_failure_does_not_stop_the_others(web, tmp_path):
    good = published(web.serve("/good", part(CONTENT)))
    bad = replace(published(web.serve("/bad", status(404))), path="made/bad.bin")
    failed = download_all([(bad, tmp_path / "bad"), (good, tmp_path / "good")], SHORT, workers=1)
    assert list(failed) == ["made/bad.bin"] and "404" in str(failed["made/bad.bin"])
    assert (tmp_path / "good").read_bytes() == CONTENT


def test_without_a_network_one_file_speaks_for_all(tmp_path):
    address = unreachable()
    tasks = [
        (replace(published(f"{address}/{n}"), path=f"made/{n}"), tmp_path / f"{n}")
        for n in range(40)
    ]
    (error,) = download_all(tasks, SHORT).values()
    assert isinstance(error, Unreachable) and files_in(tmp_path) == []


def test_a_stopped_download_ends_between_chunks(web, target):
    stop = threading.Event()
    file = published(web.serve("/a", part(CONTENT)))
    with pytest.raises(Stopped):
        download(file, target, SHORT, lambda count: stop.set() if count else None, stop)
    assert 0 < partial_of(target).stat().st_size < len(CONTENT)
