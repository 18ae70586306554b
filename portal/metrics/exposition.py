"""The text that Prometheus reads, as `prometheus_client` writes it.

The library takes 25 ms for 5,000 lines, most of it for labels, which stay the same from one scrape to the next. Here
the beginning of each line is remembered, and only the numbers behind are new, which takes a tenth of that. What stands
before the lines of a metric is the library's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.exposition import generate_latest as plain_text
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from portal.metrics.families import Family

PLAIN: Final = CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS: Final = CONTENT_TYPE_LATEST
_MOST_KNOWN: Final = 20_000  # lines: channels come, go and get other names

Value = int | float
Sample = tuple[str, tuple[str, ...], Value]  # suffix of the name; values of the labels, “le” last; the value
Samples = Sequence[tuple[Family, Iterable[Sample]]]


class _One(Collector):
    """A registry of one metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


class Exposition:
    """Writes samples as text, and remembers the beginnings of lines."""

    def __init__(self) -> None:
        self._heads: dict[tuple[str, bool], str] = {}
        self._lines: dict[tuple[str, str, tuple[str, ...]], str] = {}

    def text(self, samples: Samples, openmetrics: bool = False) -> bytes:
        """All samples, in the order of their families."""
        parts: list[str] = []
        lines = self._lines
        if len(lines) > _MOST_KNOWN:
            lines.clear()
        for family, found in samples:
            parts.append(self._head(family, openmetrics))
            name = family.name
            for suffix, labels, value in found:
                line = lines.get((name, suffix, labels))
                if line is None:
                    line = lines[name, suffix, labels] = _beginning(family, suffix, labels)
                parts.append(f"{line}{value}\n")
        if openmetrics:
            parts.append("# EOF\n")
        return "".join(parts).encode()

    def _head(self, family: Family, openmetrics: bool) -> str:
        """What comes before the first line of a metric."""
        found = self._heads.get((family.name, openmetrics))
        if found is None:
            registry = _One(Metric(family.name, family.help, family.kind))
            text = (openmetrics_text(registry) if openmetrics else plain_text(registry)).decode()
            found = self._heads[family.name, openmetrics] = text.removesuffix("# EOF\n")
        return found


def _beginning(family: Family, suffix: str, labels: tuple[str, ...]) -> str:
    """The beginning of a line, with the blank before its value."""
    if not labels:
        return f"{family.name}{suffix} "
    names = family.labels if len(labels) == len(family.labels) else (*family.labels, "le")
    pairs = [f'{name}="{_escaped(value)}"' for name, value in sorted(zip(names, labels, strict=True))]
    return f"{family.name}{suffix}{{{','.join(pairs)}}} "


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def bound(value: float) -> str:
    """A bound of a histogram, as label."""
    return str(floatToGoString(value))
