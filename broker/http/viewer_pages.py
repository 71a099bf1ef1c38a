"""Pages by listener. The console is on the control API's listener, which has the keys that it needs.

On the viewers' port: live room and host desk, their files, and tokens in development mode.

``GET /pages/token?role=viewer&user=ann`` gives a token for a few minutes, in development mode only, where every client
may take any name anyway; elsewhere the platform gives its users their tokens, and the path does not exist.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from urllib.parse import parse_qsl

from broker.auth.tokens import Authenticator
from broker.config.schema import Config
from broker.http.page_files import PageFiles, PageSite
from broker.net.http1 import HttpRequest, PageAnswer
from broker.net.loopback import FORWARDED_HEADERS, is_of_this_machine
from protocol.codes import Role
from protocol.text import is_user_id

__all__ = ["TOKEN_PATH", "TOKEN_S", "ViewerPages", "console_site", "viewer_pages"]

TOKEN_PATH = "/pages/token"
TOKEN_S = 600
ROLES = {role.name.lower(): role for role in (Role.VIEWER, Role.VIP, Role.MODERATOR, Role.HOST, Role.APP)}
MAX_QUERY = 512
OWN_SITES = frozenset({b"same-origin", b"none"})
"""Values of Sec-Fetch-Site with which a token is given: a page of this broker, or an address that a person typed. For a
picture or a script of another site's page a browser sends no Origin."""
VIEWER_PAGES = frozenset({"room", "host", "agent", "widget"})
CONSOLE_PAGES = frozenset({"console"})


class ViewerPages:
    """Answers the requests of browsers. ``issue``: makes a token of a user and a role for so many seconds; None:
    there are none."""

    def __init__(self, site: PageSite, issue: Callable[[str, Role, float], str] | None = None) -> None:
        self._site = site
        self._issue = issue

    def __call__(self, request: HttpRequest) -> PageAnswer | None:
        """Return the answer to a request, None where it is for no page."""
        path, _, query = request.target.partition(b"?")
        if path == TOKEN_PATH.encode() and self._issue is not None:
            return self._token(request, query, self._issue)
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        return self._site.answer(request.method.decode(), path.decode("latin-1"), headers)

    def _token(self, request: HttpRequest, query: bytes, issue: Callable[[str, Role, float], str]) -> PageAnswer:
        if request.method != b"GET":
            return _json(405, {"title": "a token is read with GET"}, ("Allow", "GET"))
        if any(site not in OWN_SITES for site in request.all(b"sec-fetch-site")):
            return _json(403, {"title": "a page of another site gets no token"})
        origins = request.all(b"origin")
        forwarded = [request.all(name) for name in FORWARDED_HEADERS]
        if len(origins) > 1 or not is_of_this_machine(
            request.all(b"host")[0] if request.all(b"host") else b"", origins[0] if origins else None, forwarded
        ):
            return _json(403, {"title": "in development mode only this machine is served"})
        try:
            pairs = parse_qsl(query[:MAX_QUERY].decode("ascii"), keep_blank_values=True, max_num_fields=2)
        except ValueError:
            return _json(400, {"title": "expected role and user, each once"})
        fields = dict(pairs)
        if len(fields) < len(pairs):
            return _json(400, {"title": "expected role and user, each once"})
        role = ROLES.get(fields.pop("role", "viewer"))
        if role is None:
            return _json(400, {"title": f"role is one of {', '.join(ROLES)}", "field": "role"})
        user = fields.pop("user", "") or f"{role.name.lower()}-{secrets.token_hex(3)}"
        if fields or not is_user_id(user):
            return _json(400, {"title": "user is 1 to 64 letters, digits or - _ . : @", "field": "user"})
        return _json(200, {"token": issue(user, role, TOKEN_S), "user": user, "expires_in_s": TOKEN_S})


@cache
def _files() -> PageFiles:
    """Return the files of this installation, which do not change while the process runs."""
    return PageFiles()


def viewer_pages(config: Config, auth: Authenticator) -> ViewerPages | None:
    """Return the pages of the viewers' port; None where there are none."""
    if not config.pages.enabled:
        return None
    asks = config.webhooks.questions.app.endpoint is not None
    site = PageSite(_files(), config.pages, VIEWER_PAGES, development=config.development, asks_platform=asks)

    def issue(user: str, role: Role, ttl_s: float) -> str:
        return auth.issue(user, role=role, ttl_s=ttl_s)

    return ViewerPages(site, issue if config.development else None)


def console_site(config: Config, addresses: Sequence[tuple[str, int]]) -> PageSite | None:
    """Return the pages of the control API's listener; None where there are none. ``addresses``: of the viewers' port,
    to which the console links."""
    if not config.pages.enabled:
        return None
    viewers = ""
    if config.development and addresses:
        host, port = addresses[0]
        viewers = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return PageSite(_files(), config.pages, CONSOLE_PAGES, development=config.development, viewers=viewers)


def _json(status: int, fields: Mapping[str, object], *headers: tuple[str, str]) -> PageAnswer:
    caching = ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")
    return PageAnswer(status, (("Content-Type", "application/json"), *caching, *headers), json.dumps(fields).encode())
