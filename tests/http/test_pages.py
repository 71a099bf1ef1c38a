"""Serving of the pages: addresses, headers, caching, and that nothing else of the disk can be read."""

from __future__ import annotations

import gzip
import html
import json
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from broker.config.pages import PagesConfig
from broker.config.schema import ConfigError, load
from broker.http.page_files import FOLDER, PageFiles, PageSite
from broker.net.http1 import PageAnswer
from protocol.codes import Role
from tests.support.api import API, client_of
from tests.support.broker import DEADLINE_S, running_broker

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGES = frozenset({"room", "host", "console", "agent", "widget"})


@pytest.fixture(scope="module")
def files() -> PageFiles:
    return PageFiles()


def site_of(files: PageFiles, *, development: bool = False, **settings: Any) -> PageSite:
    return PageSite(files, PagesConfig(**settings), PAGES, development=development)


def get(site: PageSite, path: str, method: str = "GET", /, **headers: str) -> PageAnswer:
    found = site.answer(method, path, {name.replace("_", "-"): value for name, value in headers.items()})
    assert found is not None
    return found


def test_a_page_is_html_that_is_checked_at_each_visit(files: PageFiles) -> None:
    site = site_of(files)
    for path in ("/room/lobby", "/host/%E5%A4%9C%E5%B8%82", "/room/a.b:c@d-e_f", "/console"):
        answer = get(site, path)
        headers = dict(answer.headers)
        assert (answer.status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert headers["Cache-Control"] == "no-cache"
        assert get(site, path, if_none_match=f'"x", W/{headers["ETag"]}')[::2] == (304, b"")
        assert get(site, path, if_none_match='"0123456789abcdef"').status == 200


def test_every_file_of_a_page_is_kept_for_a_year_under_the_version(files: PageFiles) -> None:
    site = site_of(files)
    assert re.fullmatch(r"[0-9a-f]{12}", files.version)
    linked = 0
    for page in ("/room/lobby", "/host/lobby", "/console", "/agent", "/widget"):
        for address in re.findall(r'(?:href|src)="(/pages/[^"]+)"', get(site, page).body.decode()):
            answer = get(site, address)
            assert answer.status == 200, address
            assert dict(answer.headers)["Cache-Control"] == "public, max-age=31536000, immutable"
            linked += 1
    assert linked >= 3


def test_imports_and_pictures_of_every_file_exist(files: PageFiles) -> None:
    """Relative addresses in scripts and styles lead to files that are served."""
    missing = []
    for name, asset in files.assets.items():
        text = asset.body.decode() if name.endswith((".js", ".css")) else ""
        for address in re.findall(r"""(?:from\s+|import\s*\(?\s*|url\(\s*)["']?(\.{1,2}/[^"')]+)""", text):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), address))
            if target not in files.assets:
                missing.append(f"{name}: {address}")
    assert missing == []


def test_a_page_names_every_module_that_its_entry_imports(files: PageFiles) -> None:
    site = site_of(files)
    for page in ("/room/lobby", "/host/lobby", "/console", "/agent", "/widget"):
        text = get(site, page).body.decode()
        assert "modulepreload" not in (FOLDER / f"{page.split('/')[1]}.html").read_text()
        [entry] = re.findall(r'type="module" src="([^"]+)"', text)
        named = re.findall(r'<link (?:rel="modulepreload"|data-later) href="([^"]+)"', text)
        assert len(named) == len(set(named)) > 10
        imported, waiting = set(), [entry]
        while waiting:
            name = waiting.pop()
            for address in re.findall(r"""\b(?:from |import\()["'](\.[^"']+)["']""", files.assets[name].body.decode()):
                target = posixpath.normpath(posixpath.join(posixpath.dirname(name), address))
                if target not in imported:
                    imported.add(target)
                    waiting.append(target)
        assert set(named) | {entry} == imported | {entry}


def test_a_page_loads_first_what_its_entry_needs_at_once(files: PageFiles) -> None:
    """What the entry of the live room imports by `import()` waits until its first danmaku is there."""
    text = get(site_of(files), "/room/lobby").body.decode()
    first, later = (re.findall(rf'<link {mark} href="/pages/\w+/([^"]+)"', text) for mark in
                    ('rel="modulepreload"', "data-later"))  # fmt: skip
    assert {"client/link.js", "client/dictionary.js", "js/parts/chat_list.js", "js/danmaku/stage.js"} <= set(first)
    assert {"js/room/page.js", "js/room/view.js", "js/parts/acts.js", "js/parts/composer.js"} <= set(later)
    assert not set(first) & set(later)
    assert len(first) < 40
    for page in ("/host/lobby", "/console"):
        assert "data-later" not in get(site_of(files), page).body.decode()


def test_pages_keep_their_budgets(files: PageFiles) -> None:
    """Bytes of a page with its scripts and styles, as they are sent to a browser and as it reads them."""
    site = site_of(files)
    for page, sent_budget, read_budget in (
        ("/room/lobby", 130_000, 320_000), ("/host/lobby", 110_000, 270_000), ("/console", 80_000, 200_000),
        ("/agent", 80_000, 215_000), ("/widget", 75_000, 200_000),
    ):  # fmt: skip
        text = get(site, page).body.decode()
        addresses = {page, *re.findall(r'(?:href|src)="(/pages/[^"]+)"', text)}
        sent = sum(len(get(site, each, accept_encoding="gzip").body) for each in addresses)
        read = sum(len(get(site, each).body) for each in addresses)
        print(f"{page}: {sent} bytes sent, {read} read, {len(addresses)} files")
        assert sent <= sent_budget, page
        assert read <= read_budget, page


def test_headers_are_the_same_on_every_answer(files: PageFiles) -> None:
    site = site_of(files)
    asset = next(iter(files.assets))
    for path, method in (("/room/lobby", "GET"), (asset, "GET"), ("/pages/none", "GET"), ("/console", "POST")):
        headers = dict(get(site, path, method).headers)
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Permissions-Policy"] == "camera=(), microphone=(), geolocation=(), payment=()"
    site = site_of(files, public_origin="https://live.example.com", image_hosts=("img.example.com",))
    policy = dict(get(site, asset).headers)["Content-Security-Policy"]
    assert "img-src 'self' https://img.example.com https://*.img.example.com;" in policy
    assert "connect-src 'self' wss://live.example.com;" in policy


def test_shops_that_are_named_hold_the_widget_in_a_frame_and_any_page_loads_its_script(files: PageFiles) -> None:
    def policy(site: PageSite, path: str) -> str:
        return dict(get(site, path).headers)["Content-Security-Policy"]

    assert "frame-ancestors 'none';" in policy(site_of(files), "/widget")
    shops = ("https://shop.example.com", "https://other.example")
    site = site_of(files, widget_origins=shops)
    assert f"frame-ancestors {' '.join(shops)};" in policy(site, "/widget")
    for path in ("/agent", "/console", "/room/lobby", next(iter(files.assets))):
        assert "frame-ancestors 'none';" in policy(site, path)
    script = get(site, "/widget.js")
    headers = dict(script.headers)
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert (headers["Cache-Control"], headers["Content-Type"]) == ("no-cache", "text/javascript; charset=utf-8")
    assert len(script.body) < 4096
    console = PageSite(files, PagesConfig(), frozenset({"console"}), development=False)
    for path in ("/widget", "/widget.js", "/agent"):
        assert console.answer("GET", path, {}) is None


def test_a_text_is_compressed_for_who_takes_it(files: PageFiles, tmp_path: Path) -> None:
    (tmp_path / "js").mkdir()
    (tmp_path / "js" / "a.js").write_text("export const a = 1;\n" * 200)
    own = PageFiles(tmp_path, tmp_path / "none")
    path = f"/pages/{own.version}/js/a.js"
    plain = get(site_of(own), path)
    assert dict(plain.headers)["Vary"] == "Accept-Encoding"
    for accepted in ("br, gzip", "GZIP;q=0.5"):
        answer = get(site_of(own), path, accept_encoding=accepted)
        assert dict(answer.headers)["Content-Encoding"] == "gzip"
        assert gzip.decompress(answer.body) == plain.body
    for refused in ("", "br", "gzip;q=0", "gzip; q=0.0"):
        assert get(site_of(own), path, accept_encoding=refused).body == plain.body


def test_another_file_gives_another_version(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    first = PageFiles(tmp_path, tmp_path / "none").version
    (tmp_path / "a.js").write_text("2")
    second = PageFiles(tmp_path, tmp_path / "none").version
    (tmp_path / "a.js").rename(tmp_path / "b.js")
    assert len({first, second, PageFiles(tmp_path, tmp_path / "none").version}) == 3


@pytest.mark.parametrize(
    "path",
    [
        "/pages/VERSION/../../app.py", "/pages/VERSION/%2e%2e/%2e%2e/app.py", "/pages/VERSION/..%2fapp.py",
        "/pages/VERSION//etc/passwd", "/pages/../app.py", "/pages/", "/pages/VERSION/", "/pages/VERSION/js",
        "/pages/VERSION/room.html", "/pages/000000000000/art/favicon.svg", "/pages/VERSION/art/favicon.svg/",
        "/pages/VERSION/art\\favicon.svg", "/pages/VERSION/art/favicon.svg%00.html",
    ],
)  # fmt: skip
def test_no_other_file_can_be_read(files: PageFiles, path: str) -> None:
    answer = get(site_of(files), path.replace("VERSION", files.version))
    assert (answer.status, answer.body) == (404, b"There is nothing here.\n")


@pytest.mark.parametrize(
    "path",
    ["/", "/room", "/room/", "/room/a/b", "/room/%ff", "/room/a%20b", "/room/" + "a" * 65, "/console/", "/console/x",
     "/watch/lobby", "/healthz", "/room/..%2fconsole", "/roomx/a", "/host/<script>"],
)  # fmt: skip
def test_what_is_no_address_of_a_page_is_not_answered(files: PageFiles, path: str) -> None:
    assert site_of(files).answer("GET", path, {}) is None


def test_a_listener_has_its_own_pages_only(files: PageFiles) -> None:
    viewers = PageSite(files, PagesConfig(), frozenset({"room", "host"}), development=False)
    assert viewers.answer("GET", "/console", {}) is None
    console = PageSite(files, PagesConfig(), frozenset({"console"}), development=False)
    assert console.answer("GET", "/room/lobby", {}) is None
    assert console.answer("GET", "/host/lobby", {}) is None


def settings_in(body: bytes) -> Any:
    match = re.search(r'name="roomcast" content="([^"]+)"', body.decode())
    assert match is not None
    return json.loads(html.unescape(match[1]))


@pytest.mark.integration
async def test_no_answer_in_html_may_stand_in_the_frame_of_another_page() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as api:
        for path in ("/docs", "/console"):
            answer = await api.get(path)
            assert answer.headers["content-type"].startswith("text/html"), path
            policy = answer.headers["content-security-policy"]
            for rule in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"):
                assert rule in policy, (path, rule)
            assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.integration
async def test_no_redirect_goes_where_the_host_header_says() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as api:
        for path in ("/console/", "/healthz/", "/stats/live-1/", "/v1/rooms/list/", "//evil.example/"):
            answer = await api.get(path, headers={"Host": "evil.example"})
            assert (answer.status_code, answer.headers.get("location")) in {(404, None), (403, None)}, path


def test_settings_stand_in_the_page_and_cannot_leave_their_attribute(files: PageFiles) -> None:
    site = site_of(files, development=True, link_hosts=("shop.example.com", '"><script>'))
    body = get(site, "/room/lobby").body
    assert b'"><script>' not in body
    assert settings_in(body) == {
        "development": True, "viewers": "", "asks_platform": False, "link_hosts": ["shop.example.com", '"><script>'],
        "image_hosts": [], "widget_origins": [],
    }  # fmt: skip


def test_pages_hold_no_inline_script_or_style_and_no_other_address() -> None:
    for path in sorted(FOLDER.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|https?://", text), path


@pytest.mark.parametrize("origin", ["live.example.com", "ftp://live.example.com", "https://live.example.com/x"])
def test_a_wrong_origin_is_refused_by_its_name(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"pages\.public_origin"):
        load(None, {}, {"pages": {"public_origin": origin}})


def test_a_wrong_origin_of_a_shop_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"pages\.widget_origins"):
        load(None, {}, {"pages": {"widget_origins": ["https://shop.example.com/x"]}})


@pytest.mark.parametrize("host", ["https://img.example.com", "*.example.com", "img.example.com/x", "IMG.example.com"])
def test_a_wrong_host_is_refused_by_its_name(host: str) -> None:
    with pytest.raises(ConfigError, match=r"pages\.image_hosts"):
        load(None, {}, {"pages": {"image_hosts": [host]}})


# ---- a whole broker


async def fetched(client: httpx.AsyncClient, path: str, **headers: str) -> httpx.Response:
    return await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def assert_has(found: Mapping[str, str], expected: PageAnswer) -> None:
    assert {name: found[name] for name, _ in expected.headers} == dict(expected.headers)


@pytest.mark.integration
async def test_both_listeners_serve_their_pages(files: PageFiles) -> None:
    async with running_broker(api=API) as broker, client_of(broker) as api:
        viewers = f"http://127.0.0.1:{broker.addresses[0][1]}"
        async with httpx.AsyncClient(base_url=viewers, trust_env=False, timeout=DEADLINE_S) as client:
            for path in ("/room/lobby", "/host/lobby"):
                answer = await fetched(client, path)
                assert answer.status_code == 200
                assert answer.headers["content-security-policy"] == POLICY
                assert settings_in(answer.content)["development"] is True
                again = await fetched(client, path, if_none_match=answer.headers["etag"])
                assert (again.status_code, again.content) == (304, b"")
                assert (await api.get(path)).status_code == 404
            asset = f"/pages/{files.version}/art/favicon.svg"
            for each in (client, api):
                whole = await fetched(each, asset, range="bytes=0-3", accept_encoding="gzip")
                assert (whole.status_code, whole.content) == (200, files.assets[asset].body)
                head = await each.head(asset, headers={"accept-encoding": "identity"})
                assert (head.status_code, head.content) == (200, b"")
                assert head.headers["content-length"] == str(len(files.assets[asset].body))
                assert (await each.post(asset)).status_code == 405
                assert (await each.get("/pages/x")).status_code == 404
            assert (await client.get("/console")).status_code == 404
            console = await api.get("/console")
            assert console.status_code == 200
            assert console.headers["content-security-policy"] == POLICY
            assert settings_in(console.content)["viewers"] == viewers


@pytest.mark.integration
async def test_tokens_are_given_in_development_mode_only() -> None:
    async with running_broker() as broker:
        url = f"http://127.0.0.1:{broker.addresses[0][1]}/pages/token"
        async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as client:
            made = (await client.get(url, params={"role": "host", "user": "ann"})).json()
            grant = broker.context.auth.verify(made["token"])
            assert (grant.user_id, grant.role) == ("ann", Role.HOST)
            first, second = [(await client.get(url)).json() for _ in range(2)]
            assert first["user"] != second["user"]
            assert broker.context.auth.verify(first["token"]).role is Role.VIEWER
            assert (await client.post(url)).status_code == 405
            for query in ("role=guest", "role=", "user=%00", "x=1", "role=host&role=host", "user=%20a"):
                assert (await client.get(f"{url}?{query}")).status_code == 400, query
            for headers in (
                {"Host": "evil.example"},
                {"Origin": "http://evil.example"},
                {"X-Forwarded-For": "8.8.8.8"},
                {"Origin": "null"},
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
            ):
                assert (await client.get(url, headers=headers)).status_code == 403
    async with running_broker(auth={"secret": "0123456789abcdef0123456789abcdef"}) as broker:
        url = f"http://127.0.0.1:{broker.addresses[0][1]}"
        async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as client:
            assert (await client.get(f"{url}/pages/token")).status_code == 404
            assert settings_in((await client.get(f"{url}/room/lobby")).content)["development"] is False


@pytest.mark.integration
@pytest.mark.parametrize("is_enabled", [True, False])
async def test_pages_of_the_public_origin_may_connect(is_enabled: bool) -> None:
    pages = {"public_origin": "https://live.example.com", "enabled": is_enabled}
    async with running_broker(auth={"secret": "s" * 40}, pages=pages) as broker:
        for origin, status in (("https://live.example.com", 101 if is_enabled else 403), ("https://evil.example", 403)):
            async with await trio.open_tcp_stream("127.0.0.1", broker.addresses[0][1]) as stream:
                await stream.send_all(
                    f"GET / HTTP/1.1\r\nHost: live.example.com\r\nOrigin: {origin}\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
                )
                assert (await stream.receive_some(12)).decode() == f"HTTP/1.1 {status}", origin


@pytest.mark.integration
async def test_pages_can_be_switched_off() -> None:
    async with running_broker(api=API, pages={"enabled": False}) as broker, client_of(broker) as api:
        async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as client:
            for path in ("/room/lobby", "/host/lobby", "/pages/token", "/pages/x"):
                assert (await client.get(f"http://127.0.0.1:{broker.addresses[0][1]}{path}")).status_code == 404
        assert (await api.get("/console")).status_code == 404
