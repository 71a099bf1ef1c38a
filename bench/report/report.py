"""The report: one self-contained HTML file.

It begins with the checks and the ratio to the raw loop; then come the figures with their goals, the plots, and behind
folds everything else. A badge names the way in which viewers were made: a run with simulated links is never
mistaken for one with real links.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench.report import plots
from bench.report.metrics import METRICS
from bench.report.notes import FEW_VIEWERS

__all__ = ["figure_text", "render", "write_html", "write_picture"]

Result = dict[str, Any]
"""JSON of one run. Any: see `results.assemble`."""

WAYS = {
    "sockets": ("a", "real links", "Every viewer has a link of its own: connected, authenticated and joined."),
    "shared": (
        "b",
        "viewers on shared sockets",
        "Every viewer is a real member with its own queue and its own send(2); sockets are shared, no sessions.",
    ),
    "memory": (
        "c",
        "SIMULATED links in memory",
        "No sockets and no kernel: scripted bandwidth and delay, for policies only. "
        "These figures do not measure speed and must not be compared with real links.",
    ),
}

CARDS = (
    "fanout_ratio", "durable_per_s", "durable_p99_ms", "sync_per_s", "sync_p99_ms", "back_s", "events_missed",
    "chat_p99_ms", "control_over_sweep", "control_p99_ms", "paid_p99_ms", "danmaku_per_core_s",
    "joins_per_core_s", "kib_per_viewer", "rss_growth_mib", "rejoin_p99_ms", "chat_p99_vs_reference", "broker_cores",
)  # fmt: skip
MAX_CARDS = 6

STYLE = """
:root { --ink:#1f2933; --faint:#616e7c; --line:#e4e7eb; --paper:#fff; --wash:#f5f7fa; --good:#1e8449; --bad:#c0392b;
  --warn:#b9770e; --blue:#2471a3; }
* { box-sizing:border-box } html { scroll-behavior:smooth }
body { margin:0; background:var(--wash); color:var(--ink); font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
  "Noto Sans",sans-serif }
main { max-width:1120px; margin:0 auto; padding:28px 22px 80px }
header h1 { font-size:28px; margin:0 0 4px; letter-spacing:-.01em }
header p { margin:2px 0; color:var(--faint) }
code, pre { font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace }
.command { background:#1f2933; color:#e4e7eb; padding:10px 14px; border-radius:8px; overflow:auto; margin:14px 0 }
.banner { padding:12px 16px; border-radius:8px; margin:14px 0; font-weight:600 }
.banner.good { background:#e8f6ee; color:var(--good) } .banner.bad { background:#fdecea; color:var(--bad) }
.banner ol { font-weight:400; margin:8px 0 0; padding-left:22px }
nav { display:flex; flex-wrap:wrap; gap:8px; margin:14px 0 }
nav a { text-decoration:none; color:var(--blue); background:var(--paper); border:1px solid var(--line);
  border-radius:99px; padding:3px 12px; font-size:13.5px }
section { background:var(--paper); border:1px solid var(--line); border-radius:12px; padding:24px 26px; margin:22px 0;
  box-shadow:0 1px 2px rgba(31,41,51,.04) }
section.memory { background:repeating-linear-gradient(135deg,#fff,#fff 22px,#fdf3e3 22px,#fdf3e3 44px);
  border:2px dashed var(--warn) }
h2 { margin:0; font-size:22px } h3 { font-size:15px; margin:22px 0 6px }
.purpose { color:var(--faint); max-width:75ch; margin:6px 0 12px }
.badge { display:inline-block; font-size:12.5px; font-weight:600; border-radius:6px; padding:2px 9px; margin-right:8px }
.badge.sockets { background:#e8f6ee; color:var(--good) } .badge.shared { background:#eaf2f8; color:var(--blue) }
.badge.memory { background:var(--warn); color:#fff }
.size { color:var(--faint); font-size:13.5px }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px; margin:18px 0 }
.card { border:1px solid var(--line); border-radius:10px; padding:12px 14px; background:var(--paper) }
.card.lead { border-color:var(--blue); background:#f4f9fd }
.card b { display:block; font-size:25px; line-height:1.2; letter-spacing:-.02em; font-variant-numeric:tabular-nums }
.card b small { font-size:13px; font-weight:500; color:var(--faint); margin-left:3px }
.card span { font-size:12.5px; color:var(--faint); display:block; margin-top:3px; line-height:1.35 }
.card i { font-style:normal; font-size:12px; font-weight:600 }
.good { color:var(--good) } .bad { color:var(--bad) } .warn { color:var(--warn) }
.plots { display:grid; grid-template-columns:repeat(auto-fit,minmax(460px,1fr)); gap:18px 22px; margin:10px 0 }
.plots svg { width:100%; height:auto; display:block } .plots figure { margin:0 }
table { border-collapse:collapse; width:100%; font-size:13.5px; font-variant-numeric:tabular-nums }
th { text-align:right; color:var(--faint); font-weight:600; border-bottom:1px solid var(--line); padding:5px 8px }
td { text-align:right; border-bottom:1px solid var(--line); padding:5px 8px }
th:first-child, td:first-child { text-align:left } td.text, th.text { text-align:left }
details { margin-top:14px } summary { cursor:pointer; color:var(--blue); font-weight:600; font-size:14px }
.note { background:#fef9e7; border-left:3px solid var(--warn); padding:7px 12px; margin:8px 0; font-size:13.5px }
.facts { display:grid; grid-template-columns:max-content 1fr; gap:2px 16px; font-size:13.5px }
.facts dt { color:var(--faint) } .facts dd { margin:0 }
@media (max-width:560px) { .plots { grid-template-columns:1fr } section { padding:18px 14px } }
"""


def write_html(document: dict[str, Any], path: Path) -> None:
    """Write the report of a document (``{"runs": [...], "against": [...]}``)."""
    path.write_text(render(document), encoding="utf-8")


def write_picture(document: dict[str, Any], path: Path) -> None:
    """Write the latency plot of the first run to a file (.svg or .png)."""
    with plots.styled():
        figure = plots.latency_percentiles(document["runs"][0])
        if figure is not None:
            plots.save(figure, path)


def render(document: dict[str, Any]) -> str:
    """Return the whole page. About half a second a run, nearly all of it matplotlib's."""
    runs: list[Result] = document["runs"]
    machine = runs[0]["machine"]
    anchors = [f"{index}-{run['scenario']}" for index, run in enumerate(runs, 1)]
    links = "".join(
        f'<a href="#{escape(anchor)}">{escape(run["title"])}</a>' for anchor, run in zip(anchors, runs, strict=True)
    )
    if document.get("against"):
        links += '<a href="#against">Against other servers</a>'
    links += '<a href="#machine">Machine</a>'
    parts = [
        "<header><h1>roomcast bench</h1>",
        f"<p>{escape(machine['at'])} · commit <code>{escape(machine['commit'] or 'unknown')}</code> · "
        f"{escape(machine['cpu'])}, {machine['cores']} cores · {escape(machine['python'])}</p></header>",
        f'<pre class="command">$ {escape(machine["command"])}</pre>',
        _banner(runs),
        f"<nav>{links}</nav>",
    ]
    parts += [_section(run, anchor) for run, anchor in zip(runs, anchors, strict=True)]
    if document.get("against"):
        parts.append(_against(document["against"]))
    parts.append(_machine(machine))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>roomcast bench</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _banner(runs: Sequence[Result]) -> str:
    violations = [f"{run['scenario']}: {each}" for run in runs for each in run["invariants"]["violations"]]
    checked = sum(run["invariants"]["checked"] for run in runs)
    if not violations:
        return (
            f'<div class="banner good">All {checked:,} equations hold: the counts of publishers, broker '
            "and viewers agree.</div>"
        )
    listed = "".join(f"<li>{escape(each)}</li>" for each in violations[:10])
    return (
        f'<div class="banner bad">{len(violations)} of {checked:,} equations do not hold. The first difference: '
        f"<ol>{listed}</ol></div>"
    )


def _section(run: Result, anchor: str) -> str:
    letter, name, meaning = WAYS[run["way"]]
    size = run["size"]
    facts = [f"{size['viewers']:,} viewers", f"{size['rooms']:,} room{'s' * (size['rooms'] > 1)}"]
    if "viewers_per_socket" in size:
        facts.append(f"{size['sockets']:,} sockets, {size['viewers_per_socket']:g} viewers per socket")
    facts += [f"{size['transport']}", f"{size['seconds']:g} s", f"{size['sent']:,} messages sent"]
    facts += [f"took {run['took_s']:.0f} s in total"] if "took_s" in run else []
    with plots.styled():
        drawn = [plot(run) for plot in plots.PLOTS]
        pictures = "".join(f"<figure>{plots.svg(figure)}</figure>" for figure in drawn if figure is not None)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in run["notes"])
    return "".join(
        [
            f'<section id="{escape(anchor)}" class="{run["way"]}"><h2>{escape(run["title"])}</h2>',
            f'<p class="purpose">{escape(run["purpose"])}</p>',
            f'<p><span class="badge {run["way"]}" title="{escape(meaning)}">({letter}) {escape(name)}</span>'
            f'<span class="size">{escape(" · ".join(facts))}</span></p>',
            f'<p class="size">{escape(meaning)}</p>' if run["way"] != "sockets" else "",
            _cards(run),
            notes,
            f'<div class="plots">{pictures}</div>',
            _lanes(run),
            f"<details><summary>All figures</summary>{_figures(run)}</details>",
            f"<details><summary>Latencies</summary>{_latencies(run)}</details>",
            f"<details><summary>The raw loop</summary>{_floor(run)}</details>",
            f"<details><summary>The ledger</summary>{_ledger(run)}</details>" if run.get("ledger") else "",
            f"<details><summary>Answers to publishers, links, settings</summary>{_rest(run)}</details>",
            "</section>",
        ]
    )


def _cards(run: Result) -> str:
    targets = {target["metric"]: target for target in run["targets"]}
    headline = run["headline"]
    chosen = [name for name in CARDS if name in headline]
    # The ratio leads, unless there are too few viewers for a meaningful one; then the first goal does.
    few = run["size"]["viewers"] < FEW_VIEWERS
    leader = next(iter(targets), "fanout_ratio") if few else "fanout_ratio"
    # Every figure with a goal is shown; others follow in the order above.
    chosen.sort(key=lambda name: (name != leader, name not in targets, CARDS.index(name)))
    chosen += [name for name in targets if name not in CARDS and name in headline]
    cards = []
    for name in chosen[: max(MAX_CARDS, len(targets) + 1)]:
        metric = METRICS[name]
        lead = " lead" if name == leader else ""
        cards.append(
            f'<div class="card{lead}"><b>{figure_text(headline[name])}<small>{escape(metric.unit)}</small></b>'
            f"<span>{escape(metric.label)}</span>{_goal_text(targets.get(name))}</div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _goal_text(target: dict[str, Any] | None) -> str:
    if target is None:
        return ""
    state, colour = ("reached", "good") if target["reached"] else ("missed", "bad")
    return f'<i class="{colour}">{state}: {target["kind"]} {figure_text(target["bound"])}</i>'


def figure_text(value: float) -> str:
    """Return a figure with three significant digits, thousands grouped."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g} M"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    columns = "".join(f"<th>{escape(str(cell))}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )  # fmt: skip
    return f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return figure_text(value) if isinstance(value, float) else str(value)


def _lanes(run: Result) -> str:
    parts = ("admitted", "shown", "merged", "sampled", "expired", "held", "frames_delivered")
    rows = [[name, *[row[part] for part in parts]] for name, row in run["lanes"].items() if row["admitted"]]
    chat = run["lanes"]["chat"]
    text = f"Danmaku delivered: {chat.get('danmaku_delivered', 0):,}." if chat["admitted"] else ""
    if chat.get("danmaku_missed_by_slow_viewers"):
        text += f" Slow viewers missed {chat['danmaku_missed_by_slow_viewers']:,}, which the broker reported to them."
    return (
        "<h3>Lanes</h3>"
        + _table(["lane", *[part.replace("_", " ") for part in parts]], rows)
        + f'<p class="size">{text} admitted = shown + merged + sampled + expired + held.</p>'
    )


def _figures(run: Result) -> str:
    targets = {target["metric"]: target for target in run["targets"]}
    reference = (run.get("reference") or {}).get("headline", {})
    rows = []
    for name, metric in METRICS.items():
        if name in run["headline"]:
            target = targets.get(name)
            goal = f"{target['kind']} {target['bound']:g}" if target else ""
            rows.append([metric.label, float(run["headline"][name]), metric.unit, goal, reference.get(name)])
    head = ["figure", "value", "unit", "goal", "reference run" if reference else ""]
    return _table(head, rows)


def _latencies(run: Result) -> str:
    names = ("count", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")
    rows = [
        [name, *[row.get(part) for part in names]] for name, row in run["latencies"].items() if row.get("count")
    ]  # fmt: skip
    return _table(["lane", "count", "p50, ms", "p90", "p99", "p99.9", "max"], rows) + (
        '<p class="size">Lanes: from the due time of a message to the arrival of the frame that '
        "contains it, one value for every danmaku of every copy. ambient: from the broker's stamp. "
        "ack: from due to answered. "
        "floor: from the start of a raw sweep. lateness: the generator's delay against its schedule.</p>"
    )


def _floor(run: Result) -> str:
    rows = [
        [
            f"{sweep['loop']} loop", sweep["sends"], sweep["size_bytes"], sweep["wall_s"] * 1e3,
            sweep["wall_s"] / max(1, sweep["sends"]) * 1e6, sweep["cpu_s"] / max(1, sweep["sends"]) * 1e6,
            sweep["refused"],
        ]
        for sweep in run["floor"]["sweeps"]
    ]  # fmt: skip
    if not rows:
        return "<p>The raw loop did not run.</p>"
    return _table(["sweep", "sends", "bytes", "ms a sweep", "us a send", "CPU us a send", "refused"], rows) + (
        '<p class="size">The same sockets, frames of the mean size of this run, without the broker: a bare send in a '
        "loop, after the schedule, in the broker's own process.</p>"
    )


def _ledger(run: Result) -> str:
    """Return the ledger's counters, its verification and the figures of the disk alone."""
    ledger = run["ledger"]
    verified, disk = ledger["verified"], ledger["sync_floor"]
    rows = [
        ["submissions completed during the schedule", ledger["submissions"]],
        ["refused because the queue was full", ledger["refused"]],
        ["failed", ledger["failed"]],
        ["commits, each with one sync", ledger["commits"]],
        ["submissions a commit", float(ledger["events_a_commit"])],
        ["mean commit, ms", float(ledger["mean_commit_ms"])],
        ["slowest commit, ms", float(ledger["slowest_commit_ms"])],
        ["the disk alone: serial fdatasync a second", float(disk["per_s"])],
        ["the disk alone: one fdatasync, p50, ms", float(disk["p50_ms"])],
        ["the disk alone: one fdatasync, p99, ms", float(disk["p99_ms"])],
        ["entries verified after the end of the broker", verified["entries"]],
        ["size, bytes", verified["bytes"]],
        ["damage", verified["damage"] or "none"],
    ]
    return _table(["", ""], rows) + (
        '<p class="size">The disk was timed in the ledger\'s directory before the schedule and after it, 4 KiB and a '
        "sync, one after the other.</p>"
    )


def _rest(run: Result) -> str:
    outcomes = list(dict.fromkeys(outcome for row in run["answers"].values() for outcome in row))
    answers = _table(
        ["kind", *outcomes], [[kind, *[row.get(each, 0) for each in outcomes]] for kind, row in run["answers"].items()]
    )
    pairs = {**{f"refused, {name}": count for name, count in run["refusals"].items()}}
    links = run["links"]
    for part in ("states", "close_codes", "errors", "unicast_frames"):
        pairs |= {f"links, {part.replace('_', ' ')}: {name}": count for name, count in links.get(part, {}).items()}
    pairs["links with holes in their ticks"] = links.get("with_holes", 0)
    pairs["missed danmaku that the broker reported to links"] = links.get("reported_missed", 0)
    pairs["frames compared byte by byte"] = links.get("compared", 0)
    settings = [
        f"{part}.{key} = {value}"
        for part, table in run["size"]["broker"].items()
        for key, value in (table.items() if isinstance(table, dict) else [])
    ]
    streams = [
        f"{stream['kind']}, up to {stream['peak_per_s']:g}/s" for stream in run["size"].get("streams", [])
    ]  # fmt: skip
    return (
        answers
        + _table(["", ""], [[name, count] for name, count in pairs.items()])
        + f'<p class="size">Sent: {escape("; ".join(streams))}. '
        + f"Broker's settings besides the defaults: {escape(', '.join(settings) or 'none')}.</p>"
    )


def _against(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        if row.get("absent"):
            lines.append([row["name"], "", "", "", "", "", "", f"absent: {row['absent']}"])
        else:
            lines.append(
                [
                    row["name"], row["viewers"], float(row["messages_per_s"]), float(row["p50_ms"]),
                    float(row["p99_ms"]), float(row["cpu_us"]), float(row["ratio"]), row.get("note", ""),
                ]
            )  # fmt: skip
    head = ["server", "viewers", "messages/s", "p50 ms", "p99 ms", "CPU us a delivery", "against the raw loop", "note"]
    return (
        '<section id="against"><h2>Against other servers</h2><p class="purpose">The same viewers, messages and '
        "receiver, one after the other in this run; every message is a write of its own, and roomcast's policies "
        "are off.</p>" + _table(head, lines) + "</section>"
    )


def _machine(machine: dict[str, Any]) -> str:
    items = "".join(
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(str(value))}</dd>" for name, value in machine.items()
    )
    return f'<section id="machine"><h2>Machine</h2><dl class="facts">{items}</dl></section>'
