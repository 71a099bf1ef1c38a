"""A broker process with its pages, and a real Chromium that opens them.

Tests with them are plain functions: Playwright's synchronous interface has a loop of its own. One browser serves a
file of tests; each test has contexts of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.integration import require_marker
from tests.support.processes import DEADLINE_S, command, environment
from tests.support.programs import needs

__all__ = [
    "MARKUP",
    "SIZES",
    "PageBroker",
    "bad_names",
    "chromium",
    "errors_of",
    "low_contrast",
    "page_broker",
    "wait_until",
]

SIZES = {"phone": (360, 740), "tablet": (768, 1024), "desk": (1440, 900)}
MARKUP = "\"><img src=x onerror=document.title='broken'>"
"""A text that would run if any page made markup of it."""
FLAGS = ("--disable-background-networking", "--disable-component-update", "--disable-gpu", "--no-first-run")


def wait_until(is_so: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait until something is so, asking ten times a second."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "the condition is still false"
        time.sleep(0.1)


class PageBroker:
    """A running broker. ``viewers``, ``api``: origins of its listeners; ``key``: for calls, "" = none is needed."""

    def __init__(self, announced: dict[str, Any], api: str) -> None:
        self.viewers = f"http://127.0.0.1:{announced['addresses'][0][1]}"
        self.api = api
        self.key = ""
        self._http = httpx.Client(base_url=api, trust_env=False, timeout=30)

    def call(self, operation: str, /, idempotency_key: str = "", **fields: Any) -> Any:
        """Call an operation; returns its result. Waits where the page and the test together call too often."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        path = f"/v1/{operation.replace('.', '/')}"
        answer = self._http.post(path, json=fields, headers=headers)
        while answer.status_code == 429:
            time.sleep(answer.json()["retry_after_ms"] / 1000)
            answer = self._http.post(path, json=fields, headers=headers)
        assert answer.status_code == 200, (operation, answer.text)
        return answer.json()

    def close(self) -> None:
        self._http.close()


@contextmanager
def page_broker(directory: Path, *settings: str, config: Path | None = None, port: int = 0) -> Iterator[PageBroker]:
    """Run a broker that keeps its ledger in ``directory``; ``settings``: KEY=VALUE; ``config``: a file of them;
    ``port``: of viewers, 0 = a free one."""
    require_marker("a broker process")
    arguments = command(
        "serve", f"--port={port}", "--log-level=error", f"--data-dir={directory}",
        *([] if any(each.startswith("api.listen=") for each in settings) else ["--set=api.listen=127.0.0.1:0"]),
        *(f"--set={each}" for each in settings), *([] if config is None else [f"--config={config}"]),
    )  # fmt: skip
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment(), text=True)
    try:
        assert process.stdout is not None
        announced = json.loads(process.stdout.readline())
        broker = PageBroker(announced, announced["api"][0])
        try:
            yield broker
        finally:
            broker.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_S)
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def chromium() -> Iterator[Any]:
    """Open a browser without a window. Any: Playwright is there in CI only."""
    path = needs("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        if "chromium" in os.environ.get("ROOMCAST_REQUIRE", "").split(","):
            raise
        pytest.skip("playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


def open_context(
    browser: Any, size: tuple[int, int] = (1440, 900), *, reduced_motion: str = "reduce", **options: Any
) -> Any:
    """Return a context of so many pixels whose waits have the time that tests beside other work need.

    ``reduced_motion``: "no-preference" where a test looks at what moves. Elsewhere nothing moves: a browser without a
    graphics processor draws sixty pictures a second of whatever does, which was half of all that these tests took.
    ``options``: of the browser's context.
    """
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, reduced_motion=reduced_motion, **options
    )  # fmt: skip
    context.set_default_timeout(90_000)
    return context


def open_page(browser: Any, size: tuple[int, int] = (1440, 900), **options: Any) -> Any:
    """Return a page with a context of its own (see `open_context`), which collects its ``errors``."""
    page = open_context(browser, size, **options).new_page()
    page.errors = errors_of(page)
    return page


def errors_of(page: Any) -> list[str]:
    """Collect what goes wrong in a page from now on: exceptions, errors on its console, violations of its policy."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda line: found.append(line.text) if line.type == "error" else None)
    return found


NAMES = """() => {
  const shown = node => node.checkVisibility({ checkVisibilityCSS: true }) && !node.closest("[aria-hidden=true]");
  const nameOf = node => [
    node.getAttribute("aria-label"), node.title, node.textContent, ...[...(node.labels || [])].map(l => l.textContent),
    node.placeholder,
  ].filter(Boolean).join(" ").trim();
  const start = node => node.outerHTML.slice(0, 120), all = selector => [...document.querySelectorAll(selector)];
  const controls = "button, a[href], input, select, textarea, [role=tab], [role=option], canvas[role=img]";
  const ids = all("[id]").map(node => node.id);
  return [
    ...all(controls).filter(node => shown(node) && !nameOf(node)).map(node => "no name: " + start(node)),
    ...all("img").filter(node => !node.hasAttribute("alt")).map(node => "no alt: " + start(node)),
    ...ids.filter((id, i) => ids.indexOf(id) !== i).map(id => "id twice: " + id),
    ...(all("h1").length ? [] : ["no h1"]),
  ];
}"""


def bad_names(page: Any) -> list[str]:
    """Return controls without a name, pictures without a text, ids that are there twice."""
    found: list[str] = page.evaluate(NAMES)
    return found


CONTRAST = """() => {
  const parse = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const linear = v => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const mix = (under, [r, g, b, a]) => [r, g, b].map((v, i) => under[i] * (1 - a) + v * a);
  const behind = node => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) {
      const style = getComputedStyle(n), color = parse(style.backgroundColor);
      if (style.backgroundImage !== "none") return null;
      if (color[3]) layers.push(color);
      if (color[3] === 1) break;
    }
    return layers.reverse().reduce(mix, [255, 255, 255]);
  };
  const skipped = ".sr, [aria-hidden=true], [disabled], .stage";
  const low = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement, words = text.data.trim();
    if (!words || node.closest(skipped) || node.getBoundingClientRect().width < 2) continue;
    if (!node.checkVisibility({ checkVisibilityCSS: true, checkOpacity: true })) continue;
    const style = getComputedStyle(node), under = behind(node), size = parseFloat(style.fontSize);
    if (!under) continue;
    const [a, b] = [light(mix(under, parse(style.color))), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) low.push(`${ratio.toFixed(2)} ${node.tagName}.${words.slice(0, 40)}`);
  }
  return [...new Set(low)];
}"""


def low_contrast(page: Any) -> list[str]:
    """Return texts whose contrast is below what WCAG 2.1 AA asks for; texts over pictures are left out."""
    found: list[str] = page.evaluate(CONTRAST)
    return found
