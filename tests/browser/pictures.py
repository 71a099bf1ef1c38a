"""Takes the pictures of README and the guide of the pages: a demo, its three pages, a real Chromium.

Run as ``python -m tests.browser.pictures``; what it writes is committed. ``--all DIRECTORY`` takes every page in both
themes and three sizes as well, and the sheets of the live room, to be looked at.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.pages import SIZES, chromium, open_context
from tests.support.processes import DEADLINE_S, command, environment

PICTURES = Path(__file__).parents[2] / "broker" / "guides" / "pictures"
QUALITY = 80
BUSY_S = 22
"""Into the demo: the flood and its shop run."""


@contextmanager
def demo() -> Iterator[dict[str, str]]:
    """Run a demo; yields the addresses of its pages by the names that it prints."""
    arguments = command("demo", "--stay", "--json", "--seconds=120", "--viewers=80")
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(arguments, stderr=log, stdout=subprocess.DEVNULL, env=environment())
        try:
            found: dict[str, str] = {}
            while "console" not in found:
                assert process.poll() is None, "the demo has ended"
                time.sleep(0.2)
                lines = [line.partition(": ") for line in Path(log.name).read_text(encoding="utf-8").splitlines()]
                found = {name: address for name, _, address in lines if address.startswith("http")}
            yield found
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def open_page(browser: Any, address: str, size: tuple[int, int], theme: str = "dark") -> Any:
    """Open a page in a context of its own and wait until it shows the room."""
    page = open_context(browser, size, reduced_motion="no-preference", locale="en-GB").new_page()
    page.goto(f"{address}?lang=en&theme={theme}")
    page.wait_for_timeout(6000)
    return page


def take(page: Any, path: Path) -> None:
    page.screenshot(path=str(path), type="jpeg", quality=QUALITY)


def main(arguments: list[str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    with demo() as addresses, chromium() as browser:
        time.sleep(BUSY_S)
        for name, address, size in (
            ("room", addresses["live room"], SIZES["desk"]),
            ("phone", addresses["live room"], SIZES["phone"]),
            ("host", addresses["host desk"], SIZES["desk"]),
        ):
            page = open_page(browser, address, size)
            take(page, PICTURES / f"{name}.jpg")
            page.context.close()
        if arguments[:1] == ["--all"]:
            take_all(browser, addresses, Path(arguments[1]))


def take_all(browser: Any, addresses: dict[str, str], directory: Path) -> None:
    """Take every page in both themes and all sizes."""
    directory.mkdir(parents=True, exist_ok=True)
    for theme in ("dark", "light"):
        for size_name, size in SIZES.items():
            for name, address in addresses.items():
                page = open_page(browser, address, size, theme)
                stem = f"{name.replace(' ', '-')}-{size_name}-{theme}"
                take(page, directory / f"{stem}.jpg")
                if name == "live room" and theme == "light":
                    take_sheets(page, directory, stem, is_phone=size_name == "phone")
                page.context.close()


def take_sheets(page: Any, directory: Path, stem: str, *, is_phone: bool) -> None:
    """Take the panes of the live room, and the account of its danmaku."""
    if is_phone:
        page.locator("#more-panes").click()
    for tab in ("goods", "ranks", "mine"):
        page.locator(f"[data-tab={tab}]").click()
        page.wait_for_timeout(500)
        take(page, directory / f"{stem}-{tab}.jpg")
    if is_phone:
        page.locator("#close-side").click()
        page.locator("#settings").click()
    page.locator("#account-phone" if is_phone else "#account").click()
    page.wait_for_timeout(500)
    take(page, directory / f"{stem}-account.jpg")


if __name__ == "__main__":
    main(sys.argv[1:])
