"""A web server on this computer that answers as it is told to, also badly."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Web:
    """Answers by path, each used once; the last one stays."""

    address: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)  # path, range
    ended: threading.Event = field(default_factory=threading.Event)

    def serve(self, path: str, *answers: Answer) -> str:
        """Set the answers of a path; returns its address."""
        self.answers[path] = list(answers)
        return self.address + path

    def ranges(self) -> list[str]:
        return [asked for _, asked in self.requests]


@contextmanager
def running() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.requests.append((self.path, self.headers.get("Range", "")))
            self.seen = web
            answers = web.answers[self.path]
            (answers.pop(0) if len(answers) > 1 else answers[0])(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    web.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        web.ended.set()
        server.shutdown()
        server.server_close()


def begin(request: BaseHTTPRequestHandler, status: int, **headers: object) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), str(value))
    request.end_headers()


def whole(content: bytes) -> Answer:
    """The file, whatever range was asked for."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin(request, 200, Content_Length=len(content))
        request.wfile.write(content)

    return answer


def part(content: bytes, earlier: int = 0) -> Answer:
    """What was asked for; `earlier` bytes before it too."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        span = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if not span:
            return whole(content)(request)
        start = max(0, int(span[1]) - earlier)
        if start >= len(content):
            return begin(request, 416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
        rest = content[start:]
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        begin(request, 206, Content_Range=place, Content_Length=len(rest))
        request.wfile.write(rest)

    return answer


def truncated(content: bytes, keep: int) -> Answer:
    """A connection that ends early."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin(request, 200, Content_Length=len(content))
        request.wfile.write(content[:keep])
        request.close_connection = True

    return answer


def stalled(content: bytes, keep: int) -> Answer:
    """A connection that falls silent, and stays open."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin(request, 200, Content_Length=len(content))
        request.wfile.write(content[:keep])
        request.wfile.flush()
        request.seen.ended.wait(5)  # type: ignore[attr-defined]

    return answer


def status(code: int, **headers: object) -> Answer:
    """An answer without a file."""
    return lambda request: begin(request, code, Content_Length=0, **headers)
