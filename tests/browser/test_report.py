"""Real Chromium: the report of a show opens as a file, without a script, and shows what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.cli.report_page import report_html
from tests.support.broker import joined_link
from tests.support.browser import dom
from tests.support.durable import durable_broker
from tests.support.programs import needs
from tests.support.shows import as_platform, play_show

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MEASURE = """<script>addEventListener("load", () => {
  const hidden = [...document.querySelectorAll("svg, table, h2")].filter(each => !each.getBoundingClientRect().height);
  document.title += ` (${hidden.length} not shown)`;
})</script>"""


async def test_the_report_of_a_show_opens_and_shows_every_section(directory: Path, tmp_path: Path) -> None:
    needs("chromium")
    async with durable_broker(directory) as broker, joined_link(broker, "dev:ann") as (link, number):
        await play_show(broker, link, number)
        found = (await as_platform(broker, "rooms.report", room="lobby")).report
    page = report_html(found).decode()
    assert "<script" not in page
    assert "http" not in page
    path = tmp_path / "report.html"
    path.write_text(MEASURE + page, encoding="utf-8")
    seen = dom(path.as_uri(), tmp_path / "profile")
    assert "<title>Evening sale - report (0 not shown)</title>" in seen
    assert seen.count("<svg") == 5
    for text in ("Audience", "Interaction", "Commerce", "Moderation", "Every message", "What the host did"):
        assert f"<h2>{text}</h2>" in seen
    assert "欢迎 &lt;b&gt;" in seen
    assert "mug-1" in seen
