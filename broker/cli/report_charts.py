"""Charts of a report as SVG text: no files, no scripts, the same text for the same values."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["bars", "clock", "lines", "stacked"]

WIDTH, HEIGHT = 880, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 14, 26
_PLOT_W, _PLOT_H = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
TIME_MARKS, VALUE_MARKS = 8, 4
Points = Sequence[tuple[int, int]]
"""Milliseconds since the beginning, and a value."""


def clock(ms: int) -> str:
    """Return milliseconds as HH:MM:SS."""
    seconds = max(0, ms) // 1000
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def lines(name: str, span_ms: int, series: Sequence[tuple[str, str, Points]]) -> str:
    """Return a chart of values that hold until the next one; ``series``: label, colour and points of each."""
    top = max((value for _, _, points in series for _, value in points), default=0)
    drawn = [_axes(span_ms, top)]
    for label, colour, points in series:
        path: list[str] = []
        for at_ms, value in points:
            x, y = _x(at_ms, span_ms), _y(value, top)
            path.append(f"M{x} {y}" if not path else f"H{x}V{y}")
        if path:
            path.append(f"H{_x(span_ms, span_ms)}")
        drawn.append(
            f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.5">'
            f"<title>{escape(label)}</title></path>"
        )
    return _svg(name, [(label, colour) for label, colour, _ in series], drawn)


def bars(name: str, span_ms: int, width_ms: int, label: str, colour: str, points: Points) -> str:
    """Return a chart of sums, each of ``width_ms``."""
    top = max((value for _, value in points), default=0)
    drawn = [_axes(span_ms, top)]
    for at_ms, value in points:
        x, y = _x(at_ms, span_ms), _y(value, top)
        width = max(1, _x(min(at_ms + width_ms, span_ms), span_ms) - x)
        drawn.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{_TOP + _PLOT_H - y}" fill="{colour}">'
            f"<title>{clock(at_ms)} {value:,}</title></rect>"
        )
    return _svg(name, [(label, colour)], drawn)


def stacked(name: str, rows: Sequence[tuple[str, Sequence[int]]], parts: Sequence[tuple[str, str]]) -> str:
    """Return a bar a row, divided into ``parts`` (label and colour), each row in proportion to its own sum."""
    drawn: list[str] = []
    for number, (label, values) in enumerate(rows):
        y, total, x = _TOP + number * 30, sum(values), _LEFT + 30
        drawn.append(f'<text x="{_LEFT + 24}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        for (part, colour), value in zip(parts, values, strict=True):
            width = (_PLOT_W - 130) * value // total if total else 0
            if value:
                drawn.append(
                    f'<rect x="{x}" y="{y}" width="{max(1, width)}" height="20" fill="{colour}">'
                    f"<title>{escape(part)} {value:,}</title></rect>"
                )
                x += max(1, width)
        drawn.append(f'<text x="{x + 6}" y="{y + 14}">{total:,}</text>')
    return _svg(name, parts, drawn, _TOP + len(rows) * 30 + _BOTTOM)


def _svg(name: str, legend: Sequence[tuple[str, str]], drawn: Sequence[str], height: int = HEIGHT) -> str:
    keys = "".join(f'<span><i style="background:{colour}"></i>{escape(label)}</span>' for label, colour in legend)
    return (
        f'<figure><figcaption>{escape(name)} <span class="keys">{keys}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(name)}">{"".join(drawn)}</svg></figure>'
    )


def _axes(span_ms: int, top: int) -> str:
    found: list[str] = []
    for number in range(VALUE_MARKS + 1):
        value = top * number // VALUE_MARKS
        y = _y(value, top)
        found.append(f'<path d="M{_LEFT} {y}H{WIDTH - _RIGHT}" stroke="#e4e7eb"/>')
        found.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{value:,}</text>')
    for number in range(TIME_MARKS + 1):
        at_ms = span_ms * number // TIME_MARKS
        anchor = "start" if not number else "end" if number == TIME_MARKS else "middle"
        found.append(f'<text x="{_x(at_ms, span_ms)}" y="{HEIGHT - 8}" text-anchor="{anchor}">{clock(at_ms)}</text>')
    return "".join(found)


def _x(at_ms: int, span_ms: int) -> int:
    return _LEFT + (_PLOT_W * min(max(0, at_ms), span_ms) // span_ms if span_ms else 0)


def _y(value: int, top: int) -> int:
    return _TOP + _PLOT_H - (_PLOT_H * value // top if top else 0)
