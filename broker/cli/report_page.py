"""Page of a report: one HTML file that needs nothing else, without scripts, and the report's own JSON as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from broker.cli.report_charts import bars, clock, lines, stacked

__all__ = ["report_html", "report_json"]

INK, GRID = "#1f2933", "#e4e7eb"
_OUTCOMES = {
    "shown": "#2471a3", "merged": "#7fb3d5", "sampled": "#f0b27a", "expired": "#cb4335", "held": "#bdc3c7",
}  # fmt: skip
_BARS = (
    ("danmaku", "#2471a3", 1), ("likes", "#229954", 2), ("cents of gifts and paid messages", "#d68910", 4),
)  # fmt: skip
"""Charts of the interaction: name, colour, and place of the value in a point."""
_STYLE = f"""
body{{font:15px/1.5 system-ui,"PingFang SC","Noto Sans CJK SC","Microsoft YaHei",sans-serif;color:{INK};max-width:920px;
margin:2em auto;padding:0 1em}}
h1{{margin-bottom:0}}h2{{margin:2em 0 .4em;border-bottom:1px solid {GRID}}}
.sums{{display:flex;flex-wrap:wrap;gap:.4em 2em;margin:1em 0}}.sums b{{display:block;font-size:1.5em}}
figure{{margin:1em 0}}figcaption{{font-weight:600}}svg{{width:100%}}svg text{{font-size:11px;fill:#52606d}}
.keys{{font-weight:400}}.keys span{{margin-left:1em}}
.keys i{{display:inline-block;width:.8em;height:.8em;margin-right:.3em}}
table{{border-collapse:collapse;width:100%}}td,th{{padding:.2em .6em;border-bottom:1px solid {GRID};text-align:left;
vertical-align:top;overflow-wrap:anywhere}}td.n,th.n{{text-align:right;font-variant-numeric:tabular-nums}}
"""

Report = Mapping[str, Any]
"""Any: JSON, as `ShowFold.report` makes it."""


def report_json(report: Report) -> bytes:
    """Return the bytes of a report: the same ones for the same report, wherever it comes from."""
    return (json.dumps(report, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def report_html(report: Report) -> bytes:
    """Return the page of a report."""
    title = report["title"] or report["room"]
    span_ms = max(1, report["to_ms"] - report["from_ms"])
    audience, interaction = report["audience"], report["interaction"]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Room {escape(report['room'])}, {escape(report['phase'])}, {clock(span_ms)} from "
        f"{_date(report['from_ms'])} UTC. Epoch {report['epoch']}.</p>",
        _sums(
            ("most viewers", f"{audience['peak']:,}"), ("different users, about", f"{audience['uniques']:,}"),
            ("average time of a user", clock(audience["average_watch_ms"])),
            ("danmaku", f"{interaction['danmaku']:,}"), ("likes", f"{interaction['likes']:,}"),
            ("gifts", _money(interaction["gift_cents"])),
        ),
        "<h2>Audience</h2>",
        lines(
            "Viewers over time", span_ms,
            [
                ("connections", "#2471a3", _points(report, audience, 1)),
                ("users", "#229954", _points(report, audience, 2)),
            ],
        ),
        "<h2>Interaction</h2>",
        *(_bars(report, *each) for each in _BARS),
        _interaction(interaction),
        "<h2>Commerce</h2>",
        _products(report["commerce"]["products"]),
        _activities(report),
        "<h2>Moderation</h2>",
        _moderation(report),
        "<h2>Every message</h2>",
        _accounts(report["accounts"]),
        _service(report["service"]),
        "<h2>What the host did</h2>",
        _timeline(report),
    ]  # fmt: skip
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} - report</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    ).encode()


def _bars(report: Report, name: str, colour: str, place: int) -> str:
    series, span_ms = report["interaction"], max(1, report["to_ms"] - report["from_ms"])
    width_ms = series["width_ms"]
    return bars(f"{name} in {clock(width_ms)}", span_ms, width_ms, name, colour, _points(report, series, place))


def _points(report: Report, series: Report, place: int) -> list[tuple[int, int]]:
    first_ms = series["from_ms"] - report["from_ms"]
    return [(first_ms + row[0] * series["width_ms"], row[place]) for row in series["points"]]


def _sums(*sums: tuple[str, str]) -> str:
    return f'<div class="sums">{"".join(f"<div><b>{value}</b>{escape(name)}</div>" for name, value in sums)}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str | int]]) -> str:
    """Return a table; cells that are numbers stand to the right."""
    if not rows:
        return "<p>None.</p>"
    right = [isinstance(cell, int) for cell in rows[0]]
    names = "".join(f"<th{_side(each)}>{escape(name)}</th>" for name, each in zip(head, right, strict=True))
    lines_ = "".join(
        "<tr>" + "".join(
            f"<td{_side(isinstance(cell, int))}>{f'{cell:,}' if isinstance(cell, int) else escape(cell)}</td>"
            for cell in row
        ) + "</tr>"
        for row in rows
    )  # fmt: skip
    return f"<table><tr>{names}</tr>{lines_}</table>"


def _side(is_right: bool) -> str:
    return ' class="n"' if is_right else ""


def _interaction(found: Report) -> str:
    sums = _table(
        ("", "number", "sum"),
        [
            ("gifts", found["gift_units"], _money(found["gift_cents"])),
            ("paid messages", found["highlights"], _money(found["highlight_cents"])),
            ("refunds", found["refunds"], _money(found["refunded_cents"])),
        ],
    )
    givers = [(giver["user"], _money(giver["cents"])) for giver in found["top_givers"]]
    return sums + (
        f"<h3>Who gave most, of {found['givers']:,}</h3>" + _table(("user", "sum"), givers) if givers else ""
    )


def _products(products: Sequence[Report]) -> str:
    head = ("product", "title", "explained", "for", "viewers", "clicks", "claimed", "confirmed", "sum", "ordered")
    return "<h3>Products: shown, clicked, claimed, confirmed</h3>" + _table(
        head,
        [
            (
                each["product"], each["title"], each["shown"], clock(each["shown_ms"]), each["viewers"],
                each["clicked"], each["claimed"], each["confirmed"], _money(each["confirmed_cents"]), each["ordered"],
            )
            for each in products
        ],
    )  # fmt: skip


def _activities(report: Report) -> str:
    rows = [
        (
            each["kind"], each["id"], clock(each["from_ms"] - report["from_ms"]),
            clock(each["to_ms"] - report["from_ms"]),
            ", ".join(f"{name} {value:,}" for name, value in each["amounts"].items()) or _brief(each.get("view")),
        )
        for each in report["commerce"]["activities"]
    ]  # fmt: skip
    more = report["commerce"]["activities_left_out"]
    return (
        "<h3>Activities</h3>" + _table(("kind", "id", "from", "to", "result"), rows)
        + (f"<p>{more:,} more.</p>" if more else "")
    )  # fmt: skip


def _brief(view: Any) -> str:
    if not isinstance(view, Mapping):
        return ""
    return ", ".join(f"{name} {value}" for name, value in view.items() if type(value) in (int, str) and value != "")


def _moderation(report: Report) -> str:
    found = report["moderation"]
    rows: list[tuple[str, int]] = [
        ("danmaku not shown", found["not_shown"]), ("danmaku held", found["held"]), ("deletions", found["deletions"]),
    ]  # fmt: skip
    rows += [(name.replace("_", " "), count) for name, count in found["counts"].items()]
    return _table(("", "number"), rows) + _reviews(found["reviews"]) + _sanctions(report) + _audit(found["audit"])


def _reviews(found: Report) -> str:
    if not (found["held"] or found["reported"]):
        return ""
    names = ("held", "reported", "reports", "approved", "rejected", "released", "undecided", "without_reviewer")
    rows = [(name.replace("_", " "), found[name]) for name in names]
    rows += [(f"held by {name.replace('_', ' ')}", count) for name, count in found["held_by"].items()]
    waits = f"{clock(found['average_wait_ms'])} on average, {clock(found['longest_wait_ms'])} at the longest"
    return (
        "<h3>Review</h3>" + _table(("", "number"), rows) + f"<p>Time until a decision: {waits}.</p>"
        + _table(("reviewer", "decisions"), list(found["reviewers"].items()))
    )  # fmt: skip


def _sanctions(report: Report) -> str:
    found = report["moderation"]
    rows = [
        (
            clock(line["at_ms"] - report["from_ms"]), line["what"].partition(".")[2], line["user"], line["by"],
            ", ".join(f"{name} {line[name]}" for name in ("seconds", "ban_s", "shadow", "clear") if name in line),
            line["reason"],
        )
        for line in found["sanctions"]
    ]  # fmt: skip
    more = found["sanctions_left_out"]
    return (
        "<h3>Sanctions</h3>" + _table(("at", "what", "user", "by", "how", "why"), rows)
        + (f"<p>{more:,} more.</p>" if more else "")
    )  # fmt: skip


def _audit(found: Report) -> str:
    actors = [(each["kind"], each["actor"], each["actions"]) for each in found["actors"]]
    more = found["actors_left_out"]
    return (
        f"<h3>What staff and backends changed</h3><p>{found['refused']:,} calls were refused.</p>"
        + _table(("operation", "calls"), list(found["actions"].items())) + _table(("kind", "actor", "calls"), actors)
        + (f"<p>{more:,} more.</p>" if more else "")
    )  # fmt: skip


def _accounts(accounts: Report) -> str:
    used = [(lane, account) for lane, account in accounts.items() if account["admitted"]]
    chart = stacked(
        "What became of each message that was taken in",
        [(lane, [account[outcome] for outcome in _OUTCOMES]) for lane, account in used], list(_OUTCOMES.items()),
    )  # fmt: skip
    rows = [(lane, account["admitted"], *(account[outcome] for outcome in _OUTCOMES)) for lane, account in used]
    return chart + _table(("lane", "admitted", *_OUTCOMES), rows)


def _service(service: Report) -> str:
    texts = [f"Slowest tick {service['slowest_tick_ms']:,} ms."]
    texts += [f"Overload stage {stage} for {clock(ms)}." for stage, ms in service["stage_ms"].items()]
    if service["interrupted_runs"]:
        texts.append(
            f"{service['interrupted_runs']} of {service['runs']} runs of the room were killed: what they counted in"
            " their last seconds is missing here; what is paid and sold is not."
        )
    if service["unreadable_entries"]:
        texts.append(f"{service['unreadable_entries']:,} entries could not be read.")
    return f"<p>{' '.join(texts)}</p>"


def _timeline(report: Report) -> str:
    rows = [
        (clock(line["at_ms"] - report["from_ms"]), line["what"], line.get("id", ""), line.get("text", ""))
        for line in report["timeline"]
    ]
    more = report["timeline_left_out"]
    return _table(("at", "what", "id", "text"), rows) + (f"<p>{more:,} more.</p>" if more else "")


def _money(cents: int) -> str:
    return f"{cents // 100:,}.{cents % 100:02d}"


def _date(ms: int) -> str:
    """Return a time as people write it, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
