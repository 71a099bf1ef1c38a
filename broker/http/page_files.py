"""Files of the pages, read once at the start, and the answers to requests for them.

``/room/NAME``, ``/host/NAME``, ``/agent``, ``/widget`` and ``/console`` are HTML with an ETag, checked again at each
visit, as is ``/widget.js``, which pages of shops load; everything else is under ``/pages/VERSION/``, where VERSION is a
hash over all files, so that it may be kept for a year. In HTML the word VERSION stands for it in addresses, and
SETTINGS for the settings that scripts read, as JSON. Modules are not bundled: a page names those that its entry
imports, so that they are loaded together.

Nothing of a request is used as a path: it is looked up in a table. Every answer has the same policy: scripts, styles
and connections from this origin only, no inline code, no frames; ``/widget`` alone may be the frame of the shops that
the configuration names.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from broker.config.pages import PagesConfig
from broker.net.http1 import PageAnswer
from protocol.text import is_room_name

__all__ = ["PageFiles", "PageSite"]

FOLDER = Path(__file__).parent / "pages"
CLIENT = Path(__file__).parent.parent.parent / "protocol" / "clients" / "js"
PREFIX = "/pages/"
MAX_FILE_BYTES = 256 * 1024
"""Largest file; the budget of a whole page is below it."""
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".png": "image/png",
}
GZIP_FROM = 512
"""Bytes from which a text is also kept compressed."""
_ROOM_PAGE = re.compile(r"/(room|host)/([^/]+)").fullmatch
_PAGES = {"/console": "console.html", "/agent": "agent.html", "/widget": "widget.html"}
WIDGET_SCRIPT = "/widget.js"
"""Script that a page of a shop loads, from wherever it is; it makes the button and the frame of the widget."""
_ENTRY = re.compile(r'<script type="module" src="/pages/VERSION/([^"]+)">').search
_IMPORTS = re.compile(
    r"""^(?:import|export)\b[^;"'(]*?["'](\.{1,2}/[^"']+)["']|\bimport\(["'](\.{1,2}/[^"']+)["']\)""", re.MULTILINE
).finditer
"""Imports of a module, as the sources write them: static ones at the beginning of a line, and ``import("./name.js")``.
What is imported by a name that is computed is loaded when it is needed."""
_IS_ETAG = re.compile(r'(?:W/)?"[0-9a-f]{16}"').fullmatch


class _File(NamedTuple):
    """A file as it is sent; ``compressed``: by gzip, None where that is not shorter."""

    content_type: str
    body: bytes
    compressed: bytes | None
    etag: str


class PageFiles:
    """All files with their version. OSError or ValueError if they cannot be read, or one has no known type."""

    def __init__(self, folder: Path = FOLDER, client: Path = CLIENT) -> None:
        texts = _read(folder, "") | _read(client, "client/")
        digest = hashlib.sha256()
        for name, data in sorted(texts.items()):
            digest.update(b"%d %b %d\n" % (len(name), name.encode(), len(data)) + data)
        self.version = digest.hexdigest()[:12]
        self.widget_script = _file(texts.get("js/widget_button.js", b""), TYPES[".js"])
        self.html = {name: _preloaded(data.decode(), texts) for name, data in texts.items() if name.endswith(".html")}
        self.assets = {
            f"{PREFIX}{self.version}/{name}": _file(data, TYPES[Path(name).suffix])
            for name, data in texts.items()
            if not name.endswith(".html")
        }


class PageSite:
    """The pages of one listener. ``pages``: names of those that it has; ``development``: whether tokens are given."""

    def __init__(
        self,
        files: PageFiles,
        config: PagesConfig,
        pages: frozenset[str],
        *,
        development: bool,
        viewers: str = "",
        asks_platform: bool = False,
    ) -> None:
        """``viewers``: origin of the viewers' port, for links; ``asks_platform``: whether app.call has an endpoint."""
        self._files = files
        self._common = _headers(config, "'none'")
        self._of_widget = _headers(config, " ".join(config.widget_origins) or "'none'")
        settings = json.dumps(
            {
                "development": development,
                "viewers": config.public_origin or viewers,
                "asks_platform": asks_platform,
                "link_hosts": config.link_hosts,
                "image_hosts": config.image_hosts,
                "widget_origins": config.widget_origins,
            }
        )
        self._html = {
            name: _file(
                text.replace("/pages/VERSION/", f"{PREFIX}{files.version}/")
                .replace("SETTINGS", html.escape(settings))
                .encode(),
                TYPES[".html"],
            )
            for page in pages
            for name in [f"{page}.html"]
            if (text := files.html.get(name)) is not None
        }

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> PageAnswer | None:
        """Answer a request; None where its path is no page's. ``path``: as it came, without the query; ``headers``:
        their names in lower case."""
        page = self._page_of(path)
        is_script = path == WIDGET_SCRIPT and "widget.html" in self._html
        if page is None and not is_script and not path.startswith(PREFIX):
            return None
        if method not in ("GET", "HEAD"):
            return self._text(405, "Only GET and HEAD are answered here.", ("Allow", "GET, HEAD"))
        found = self._html.get(page or "") or self._files.assets.get(path)
        if is_script:
            found = self._files.widget_script
        if found is None:
            return self._text(404, "There is nothing here.")
        caching = "no-cache" if page or is_script else "public, max-age=31536000, immutable"
        policy = self._of_widget if page == "widget.html" else _for_all(self._common) if is_script else self._common
        common = (("Cache-Control", caching), ("ETag", found.etag), ("Vary", "Accept-Encoding"), *policy)
        if _matches(headers.get("if-none-match", ""), found.etag):
            return PageAnswer(304, common, b"")
        body = found.body
        encoding: tuple[tuple[str, str], ...] = ()
        if found.compressed is not None and _takes_gzip(headers.get("accept-encoding", "")):
            body, encoding = found.compressed, (("Content-Encoding", "gzip"),)
        return PageAnswer(200, (("Content-Type", found.content_type), *encoding, *common), body)

    def _page_of(self, path: str) -> str | None:
        """Return the name of the HTML file that a path means, None where it means none."""
        if path in _PAGES:
            return _PAGES[path] if _PAGES[path] in self._html else None
        match = _ROOM_PAGE(path)
        if match is None or f"{match[1]}.html" not in self._html:
            return None
        try:
            room = unquote_to_bytes(match[2]).decode()
        except ValueError:
            return None
        return f"{match[1]}.html" if is_room_name(room) else None

    def _text(self, status: int, text: str, *headers: tuple[str, str]) -> PageAnswer:
        plain = ("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")
        return PageAnswer(status, (*plain, *headers, *self._common), f"{text}\n".encode())


def _read(folder: Path, prefix: str) -> dict[str, bytes]:
    """Return the files below a folder by their names in addresses; declarations and tests are not sent."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.suffix not in TYPES or name.endswith((".test.js", "package.json")):
            continue
        if any(part in ("test", "tests", "node_modules") or part.startswith(".") for part in Path(name).parts):
            continue
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"{path}: a file of the pages has at most {MAX_FILE_BYTES} bytes")
        found[prefix + name] = data
    return found


def _preloaded(page: str, texts: Mapping[str, bytes]) -> str:
    """Return a page that names all modules of its entry, so that a browser loads them at once and not one import after
    another. What the entry itself imports by ``import()`` is for later: its links have no ``rel`` until the entry gives
    them one, so that they do not share the browser's few connections with what is needed first."""
    entry = _ENTRY(page)
    if entry is None:
        return page
    urgent, later = _closure([entry[1]], set(), texts, skips_later=entry[1])
    links = [f'<link rel="modulepreload" href="{PREFIX}VERSION/{name}">\n' for name in urgent if name != entry[1]]
    rest, _ = _closure(later, set(urgent), texts)
    links += [f'<link data-later href="{PREFIX}VERSION/{name}">\n' for name in rest]
    return page.replace("</head>", f"{''.join(links)}</head>", 1)


def _closure(
    names: list[str], known: set[str], texts: Mapping[str, bytes], skips_later: str = ""
) -> tuple[list[str], list[str]]:
    """Return modules and all that they import, breadth first and without those that are ``known``; and what the module
    ``skips_later`` imports by ``import()``, which is not followed."""
    found: dict[str, None] = {}
    later: list[str] = []
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name in found or name in known or name not in texts:
            continue
        found[name] = None
        for each in _IMPORTS(texts[name].decode()):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), each[1] or each[2]))
            (later if each[2] and name == skips_later else waiting).append(target)
    return list(found), later


def _file(data: bytes, content_type: str) -> _File:
    compressed = gzip.compress(data, 6, mtime=0) if len(data) >= GZIP_FROM else data
    etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    return _File(content_type, data, compressed if len(compressed) < len(data) else None, etag)


def _for_all(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return the headers of what pages of other origins may load."""
    name = "Cross-Origin-Resource-Policy"
    return tuple((each, "cross-origin" if each == name else value) for each, value in headers)


def _headers(config: PagesConfig, ancestors: str) -> tuple[tuple[str, str], ...]:
    """Return the headers that every answer has. ``ancestors``: origins that may have it in a frame."""
    images = " ".join(f"https://{host} https://*.{host}" for host in config.image_hosts)
    socket = (config.public_origin or "").replace("http", "ws", 1)
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src 'self' {images}".rstrip(),
            f"connect-src 'self' {socket}".rstrip(),
            "base-uri 'none'",
            "form-action 'none'",
            f"frame-ancestors {ancestors}",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    return (
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=()"),
    )


def _matches(presented: str, etag: str) -> bool:
    """Return whether an If-None-Match names a file as it is."""
    tags = [tag.strip() for tag in presented.split(",")]
    return presented.strip() == "*" or any(_IS_ETAG(tag) and tag.removeprefix("W/") == etag for tag in tags)


def _takes_gzip(accepted: str) -> bool:
    """Return whether an Accept-Encoding allows gzip."""
    for each in accepted.split(","):
        coding, _, weight = each.partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
