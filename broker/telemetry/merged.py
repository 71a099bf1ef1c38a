"""Metrics of several processes as one page: each series of each process under its own label, none of them summed.

Sums are what queries are for (``sum by (...)``), and a sum made here would hide the process that is wrong. So the page
reads as if each process had been scraped by itself, under the label ``node`` in place of the scraper's ``instance``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["merge"]


def merge(texts: Mapping[str, str], more: Iterable[tuple[str, str, str, Mapping[str, float]]] = ()) -> str:
    """Return one page in the Prometheus text format.

    :param texts: pages in the same format, by node.
    :param more: metrics of the supervisor: name, help, kind, and values by node.
    """
    families: dict[str, tuple[list[str], list[str]]] = {}
    for node, text in texts.items():
        samples: list[str] = []
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                head, samples = families.setdefault(name, ([], []))
                if not head:
                    head.append(line)
            elif line.startswith("# TYPE "):
                name = line.split(" ", 3)[2]
                head, samples = families.setdefault(name, ([], []))
                if len(head) < 2:
                    head.append(line)
            elif line:
                samples.append(_labelled(line, node))
    for name, text, kind, values in more:
        head = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        families[name] = (head, [f'{name}{{node="{_escape(node)}"}} {value}' for node, value in values.items()])
    return "".join(f"{line}\n" for head, samples in families.values() for line in (*head, *samples))


def _labelled(line: str, node: str) -> str:
    """Return a sample with the label ``node`` before its own."""
    label = f'node="{_escape(node)}"'
    brace, space = line.find("{"), line.find(" ")
    if brace < 0 or space < brace:
        return f"{line[:space]}{{{label}}}{line[space:]}"
    return f"{line[: brace + 1]}{label},{line[brace + 1 :]}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
