"""The report of the run: what was found, in Markdown and as JSON."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench.everything.chaos import Event
from bench.everything.clients import Seen
from bench.everything.judge import Money, explain
from bench.everything.upstreams.counting import Attempt

_FAULTY: Final = {"hung", "wrong", "missing"}  # what a client must never see
_WARM_SHARE: Final = 0.25  # of a worker's life after which its memory has to be flat
_MOST_SHOWN: Final = 60


@dataclass
class Findings:
    """Everything that the run found."""

    minutes: float
    phases: dict[str, float] = field(default_factory=dict)  # seconds of each
    latencies: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    money: dict[str, Any] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    log_errors: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    cpu: str = ""

    @property
    def passed(self) -> bool:
        return not (self.mismatches or self.leftovers or self.tracebacks or self.faults)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


# -- time --------------------------------------------------------------------------------------------------------------


def latencies(
    seen: Iterable[Seen], attempts: Mapping[str, Sequence[Attempt]], events: Sequence[Event]
) -> dict[str, dict[str, Any]]:
    """Milliseconds by kind: alone, and beside the others with all that was done to the portal.

    `calm`: answers that no upstream failed on, outside of restarts and kills. `overhead`: without the time that the
    upstream took.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    restarts = [event for event in events if event.what != "dead key"]
    for one in seen:
        if one.how != "whole" or one.kind == "batchline":
            continue
        times = one.turns if one.kind == "realtime" else [one.seconds]
        alone = one.phase == "alone"
        tries = [attempt for tag in (one.tag, *one.lines) for attempt in attempts.get(tag, ())]
        if not alone:
            found[one.kind]["all"] += times
            if any(event.touches(one.at, one.ended, 0.0, 3.0) for event in restarts):
                continue
            found[one.kind]["outside"] += times
            if any(attempt.fault for attempt in tries):
                continue
        found[one.kind]["alone" if alone else "calm"] += times
        if one.first is not None:
            found[one.kind]["alone first" if alone else "calm first"].append(one.first)
        if len(tries) == 1 and one.kind not in {"realtime", "background", "batch"}:
            over = max(0.0, one.seconds - tries[0].seconds)
            found[one.kind]["alone overhead" if alone else "calm overhead"].append(over)
    return {kind: _figures(values) for kind, values in found.items()}


def _figures(values: Mapping[str, list[float]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, times in values.items():
        figures[name] = {
            "n": len(times),
            "p50": round(1000 * quantile(times, 0.5)),
            "p99": round(1000 * quantile(times, 0.99)),
        }
    alone, calm = figures.get("alone"), figures.get("calm")
    if alone and calm and alone["p99"]:
        figures["ratio"] = {name: round(calm[name] / max(alone[name], 1), 2) for name in ("p50", "p99")}
    return figures


# -- errors ------------------------------------------------------------------------------------------------------------


def errors(
    seen: Iterable[Seen], attempts: Mapping[str, Sequence[Attempt]], events: Sequence[Event]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The errors that clients got, by kind and reason; and those that nothing explains."""
    counts: Counter[tuple[str, str, int, str, str]] = Counter()
    unexplained: list[str] = []
    for one in seen:
        if one.how in {"whole", "left"}:
            continue
        why = explain(one, attempts.get(one.tag, ()), events)
        if one.how in _FAULTY or (one.how == "status" and one.status == 500):
            why = ""
        counts[one.kind, one.how, one.status, one.code, why or "**nothing explains it**"] += 1
        if not why:
            tried = [(attempt.channel, attempt.fault, attempt.end) for attempt in attempts.get(one.tag, ())]
            unexplained.append(
                f"{one.request_id or '(no id)'} {one.tag} at {one.at:.1f} for {one.seconds:.1f} s: {one.how} "
                f"{one.status} {one.code} {one.message} {tried}"
            )
    names = ("kind", "how", "status", "code", "why")
    rows = [dict(zip(names, key, strict=True), count=count) for key, count in counts.most_common()]
    return rows, unexplained


# -- memory and the log ------------------------------------------------------------------------------------------------


def memory(samples: Mapping[int, Sequence[tuple[float, float]]]) -> dict[str, dict[str, Any]]:
    """The memory of each worker that lived for some time, and its slope in MiB a minute after it had warmed up."""
    found = {}
    for pid, series in samples.items():
        warm = series[max(1, int(len(series) * _WARM_SHARE)) :]
        if len(warm) < 3:
            continue
        found[str(pid)] = {
            "mib": [size for _, size in series],
            "slope": round(_slope(warm), 3),
            "growth": round(warm[-1][1] - warm[0][1], 1),
            "minutes": round((series[-1][0] - series[0][0]) / 60, 1),
        }
    return found


def _slope(points: Sequence[tuple[float, float]]) -> float:
    middle, mean = sum(at for at, _ in points) / len(points), sum(size for _, size in points) / len(points)
    spread = sum((at - middle) ** 2 for at, _ in points)
    return 60 * sum((at - middle) * (size - mean) for at, size in points) / spread if spread else 0.0


def read_log(text: str) -> tuple[list[str], dict[str, int]]:
    """The tracebacks of a log, each with the line before it and its last one, and the errors by their text."""
    lines, tracebacks = text.splitlines(), []
    for number, line in enumerate(lines):
        if not line.startswith("Traceback (most recent call last)"):
            continue
        end = next(
            (at for at in range(number + 1, len(lines)) if lines[at] and not lines[at].startswith((" ", "\t"))), number
        )
        tracebacks.append(f"{lines[number - 1][:300]} … {lines[end - 1].strip()[:200]} … {lines[end][:300]}")
    found: Counter[str] = Counter()
    for line in lines:
        if " ERROR " in line or " CRITICAL " in line:
            found[re.sub(r"[0-9a-f]{6,}|\d+", "…", line)[:200]] += 1
    return tracebacks, dict(found.most_common())


# -- the page ----------------------------------------------------------------------------------------------------------


def money_figures(money: Money) -> dict[str, Any]:
    return {
        "exact": money.exact,
        "counted_usd": money.counted / 1e9,
        "paid_usd": money.paid / 1e9,
        "estimated": money.estimated,
        "estimated_counted_usd": money.estimated_counted / 1e9,
        "estimated_paid_usd": money.estimated_paid / 1e9,
        "unbilled": dict(money.unbilled),
        "unbilled_counted_usd": money.unbilled_counted / 1e9,
        "charged_but_refused": dict(money.refused),
    }


def markdown(found: Findings) -> str:
    lines = [
        f"# Everything at once, {found.minutes:g} minutes: {'passed' if found.passed else 'FAILED'}",
        "",
        f"Requests: {', '.join(f'{kind} {count}' for kind, count in sorted(found.sent.items()))}.",
        f"Not sent, since too many were running: {found.skipped or 'none'}. {found.cpu}",
        "",
        "## Money",
        "",
        *(f"- {name}: {value}" for name, value in found.money.items()),
        "",
        *_list("Mismatches", found.mismatches),
        *_list("Left over", found.leftovers),
        *_list("Tracebacks in the log", found.tracebacks),
        *_list("Faults", found.faults),
        "## Errors that clients got",
        "",
        "| kind | how | status | code | why | count |",
        "|---|---|--:|---|---|--:|",
    ]
    for row in found.errors:
        lines.append(
            "| " + " | ".join(str(row[name]) for name in ("kind", "how", "status", "code", "why", "count")) + " |"
        )
    lines += ["", "## Time, in ms", "", _HEAD, "|---|" + "--:|" * 13]
    lines += [_row(kind, figures) for kind, figures in sorted(found.latencies.items())]
    lines += ["", "## Memory of workers, in MiB", ""]
    for pid, series in found.memory.items():
        sizes = " ".join(f"{size:.0f}" for size in series["mib"])
        lines.append(
            f"- {pid}, {series['minutes']} min: {sizes}; once warm {series['slope']:+} a minute, "
            f"{series['growth']:+} in all"
        )
    lines += ["", "## What was done", ""]
    for event in found.events:
        lines.append(f"- {event['at']:.0f} s: {event['what']} {event['detail']}, noticed for {event['seconds']:.1f} s")
    lines += ["", "## Errors in the log", "", *(f"- {count} × {text}" for text, count in found.log_errors.items())]
    return "\n".join(lines) + "\n"


_HEAD: Final = (
    "| kind | alone: n | p50 | p99 | everything: n | p50 | p99 | p50 ratio | p99 ratio | with failing upstreams: p99 | "
    "with restarts: p99 | first part p99: alone | everything | overhead p99: alone → everything |"
)


def _row(kind: str, figures: Mapping[str, Any]) -> str:
    def cell(name: str, part: str) -> str:
        return str(figures[name][part]) if name in figures else ""

    over = f"{cell('alone overhead', 'p99')} → {cell('calm overhead', 'p99')}"
    cells = [
        *(cell("alone", part) for part in ("n", "p50", "p99")),
        *(cell("calm", part) for part in ("n", "p50", "p99")),
        *(cell("ratio", part) for part in ("p50", "p99")),
        cell("outside", "p99"),
        cell("all", "p99"),
        cell("alone first", "p99"),
        cell("calm first", "p99"),
        over,
    ]
    return f"| {kind} | " + " | ".join(cells) + " |"


def _list(title: str, items: Sequence[str]) -> list[str]:
    if not items:
        return [f"{title}: none.", ""]
    shown = [f"- {item}" for item in items[:_MOST_SHOWN]]
    more = [f"- … {len(items) - _MOST_SHOWN} more"] if len(items) > _MOST_SHOWN else []
    return [f"## {title} ({len(items)})", "", *shown, *more, ""]
