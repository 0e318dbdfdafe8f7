"""Links and addresses of pages, read from their HTML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
SHEETS = {"stylesheet", "icon", "preload"}  # what a browser loads of all <link>


@dataclass
class Parsed(HTMLParser):
    """What a page names.

    Attributes:
        names: Its anchors.
        links: Where its links lead.
        loads: What it loads to be shown; `lazy` of it only when it is scrolled to.
        untitled: Images without an alt text.
    """

    names: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    lazy: set[str] = field(default_factory=set)
    untitled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names."""
        own = {name: value or "" for name, value in attrs}
        self.names |= {own[name] for name in ("id", "name") if own.get(name)}
        if tag == "a" and "href" in own:
            self.links.append(own["href"])
        address = own.get(LOADED.get(tag, ""), "")
        if address and (tag != "link" or set(own.get("rel", "").split()) & SHEETS):
            self.loads.append(address)
            if own.get("loading") == "lazy":
                self.lazy.add(address)
        if tag == "img" and "alt" not in own:
            self.untitled.append(own.get("src", "")[:80])


@lru_cache(maxsize=256)
def parsed(page: Path) -> Parsed:
    """What a page names, read once."""
    found = Parsed()
    found.feed(page.read_text("utf-8"))
    return found


def is_local(address: str) -> bool:
    """Whether an address is a file of the book."""
    return not urlsplit(address).scheme and not address.startswith("//")


def target(page: Path, address: str) -> tuple[Path, str]:
    """The file that a local address of a page leads to, and the anchor in it."""
    path, anchor = urldefrag(address)
    own = page if not path else page.parent / unquote(urlsplit(path).path)
    return own.resolve(), unquote(anchor)


def dead_links(page: Path) -> Iterable[str]:
    """Local links of a page without a file or an anchor, and images without an alt text."""
    found = parsed(page)
    for address in dict.fromkeys((*found.links, *found.loads)):
        if not is_local(address):
            continue
        path, anchor = target(page, address)
        if not path.exists():
            yield f"nothing is at {address}"
        elif anchor and path.suffix == ".html" and anchor not in parsed(path).names:
            yield f"no anchor at {address}"
    yield from (f"an image without alt text: {source}" for source in found.untitled)


def foreign_loads(page: Path) -> Iterable[str]:
    """What a page would load from another host."""
    found = parsed(page).loads
    yield from (f"loads {a}" for a in found if not is_local(a) and not a.startswith("data:"))


def weight_bytes(page: Path) -> int:
    """What a first visit loads: the page with all it names, frames with what they name.

    Uncompressed, as a small server sends it; what scripts ask for later is not in it.
    """
    waiting, seen = [page.resolve()], set()
    while waiting:
        path = waiting.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        if path.suffix == ".html":
            own = parsed(path)
            loads = [a for a in own.loads if a not in own.lazy and is_local(a)]
            waiting += [target(path, address)[0] for address in loads]
    return sum(path.stat().st_size for path in seen)
