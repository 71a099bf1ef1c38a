"""Metrics in the text format of Prometheus (version 0.0.4): rows, numbers with labels, histograms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, isnan
from typing import Any, Literal, NamedTuple

from broker.core.structures.histogram import Histogram

__all__ = ["Kind", "Metric", "MetricValue", "render", "series", "values_of"]

Kind = Literal["counter", "gauge", "histogram"]


class MetricValue(NamedTuple):
    """One number of a metric. ``labels``: (name, value) pairs; ``suffix``: of the name, for the parts of a
    histogram."""

    value: float
    labels: tuple[tuple[str, str], ...] = ()
    suffix: str = ""


class Metric(NamedTuple):
    """One row. ``read`` takes what was read of a broker and returns a number, or with a label a mapping from label
    value to number; of a histogram a `Histogram` in place of each number."""

    name: str
    kind: Kind
    help: str
    read: Callable[[Any], Any]
    sources: tuple[str, ...] = ()
    """``module:attribute`` of every place that changes it."""
    label: str = ""
    """Name of the label where `read` returns a mapping from label value to number."""


def values_of(value: Any, labels: tuple[tuple[str, str], ...]) -> list[MetricValue]:
    """Return the numbers of one value: itself, or the parts of a `Histogram`. Any: number or histogram."""
    if not isinstance(value, Histogram):
        return [MetricValue(float(value), labels)]
    count = value.count
    made = [
        MetricValue(float(total), (*labels, ("le", _number(bound))), "_bucket") for bound, total in value.cumulative()
    ]
    made.append(MetricValue(float(count), (*labels, ("le", "+Inf")), "_bucket"))
    return [*made, MetricValue(value.sum, labels, "_sum"), MetricValue(float(count), labels, "_count")]


def render(metrics: Iterable[tuple[Metric, Iterable[MetricValue]]]) -> str:
    """Return the Prometheus text format (version 0.0.4) of what `collect` has read."""
    lines = []
    for metric, samples in metrics:
        lines += [f"# HELP {metric.name} {_escape(metric.help)}", f"# TYPE {metric.name} {metric.kind}"]
        for sample in samples:
            lines.append(f"{series(metric, sample)} {_number(sample.value)}")
    return "\n".join(lines) + "\n"


def series(metric: Metric, sample: MetricValue) -> str:
    """Return the name of a sample with its labels."""
    labels = ",".join(f'{name}="{_escape(value, quotes=True)}"' for name, value in sample.labels)
    return f"{metric.name}{sample.suffix}{{{labels}}}" if labels else metric.name + sample.suffix


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if isnan(value):
        return "NaN"
    return {inf: "+Inf", -inf: "-Inf"}.get(value) or repr(value)
