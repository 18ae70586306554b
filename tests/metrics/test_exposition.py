"""The text of the metrics is that of Prometheus' own library, and its parsers read it."""

from __future__ import annotations

from prometheus_client import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain
from prometheus_client.registry import Collector

from portal.metrics.exposition import Exposition, Samples, bound
from portal.metrics.families import Family

HOSTILE = 'a"b\\c\nd{}=,é 中'
COUNTER = Family("one", "counter", ("model", "outcome"), 'With "quotes", \\ and\nlines.')
GAUGE = Family("two", "gauge", (), "Plain.")
HISTOGRAM = Family("three_seconds", "histogram", ("model",), "Times.")
SAMPLES: Samples = [
    (COUNTER, [("_total", (HOSTILE, "ok"), 3), ("_total", ("x", HOSTILE), 0.000000001)]),
    (GAUGE, [("", (), 1_800_000_000.5)]),
    (
        HISTOGRAM,
        [
            ("_bucket", ("m", bound(0.25)), 1), ("_bucket", ("m", bound(1)), 2),
            ("_bucket", ("m", bound(float("inf"))), 3), ("_count", ("m",), 3), ("_sum", ("m",), 4.5),
        ],
    ),
]  # fmt: skip


class Library(Collector):
    def collect(self) -> list[Metric]:
        found = []
        for family, samples in SAMPLES:
            metric = Metric(family.name, family.help, family.kind)
            for suffix, labels, value in samples:
                names = (*family.labels, "le")[: len(labels)]
                metric.add_sample(family.name + suffix, dict(zip(names, labels, strict=True)), value)
            found.append(metric)
        return found


def parsed(text: str) -> list[tuple[str, dict[str, str], float]]:
    return [(one.name, one.labels, one.value) for family in read_plain(text) for one in family.samples]


def test_both_formats_say_what_the_library_says() -> None:
    made = Exposition()
    for _ in range(2):  # the second time from memory
        assert parsed(made.text(SAMPLES).decode()) == parsed(generate_latest(Library()).decode())
    ours = [(one.name, one.labels, one.value) for family in read_openmetrics(made.text(SAMPLES, True).decode())
            for one in family.samples]  # fmt: skip
    theirs = [(one.name, one.labels, one.value) for family in read_openmetrics(openmetrics_text(Library()).decode())
              for one in family.samples]  # fmt: skip
    assert ours == theirs


def test_what_is_before_the_values_is_the_same_to_the_letter() -> None:
    ours, theirs = Exposition().text(SAMPLES).decode(), generate_latest(Library()).decode()
    assert [line.rpartition(" ")[0] for line in ours.split("\n")] == [
        line.rpartition(" ")[0] for line in theirs.split("\n")
    ]
