"""The page on monitoring lists the metrics that there are, and the dashboard and alert rules name no others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from portal.metrics.counts.memory import CHANNELS, IDS, MODELS, SLOTS
from portal.metrics.families import ALL
from portal.metrics.samples import WITH_ATTEMPTS, WITH_TIMES
from tests.support.server import ROOT

PAGE = (ROOT / "docs" / "monitoring.md").read_text()
SAMPLES = ROOT / "docs" / "monitoring"
DASHBOARD, ALERTS = SAMPLES / "dashboard.json", SAMPLES / "alerts.yaml"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SERIES = {family.name + suffix: family for family in ALL for suffix in SUFFIXES[family.kind]}


def expressions() -> list[str]:
    found = [
        target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel.get("targets", ())
    ]
    rules: dict[str, Any] = yaml.safe_load(ALERTS.read_text())
    return found + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_the_page_lists_every_metric_and_nothing_else() -> None:
    listed = re.findall(r"^\| `(airelays_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", PAGE, re.M)
    assert listed == [
        (
            family.name + ("_total" if family.kind == "counter" else ""),
            family.kind,
            ", ".join(f"`{label}`" for label in family.labels),
            family.help,
        )
        for family in ALL
    ]


def test_the_page_says_how_many_series_there_may_be() -> None:
    said = f"first {MODELS - 1} models.*first {CHANNELS - 1} channels.*first {WITH_ATTEMPTS} .*first {WITH_TIMES} "
    assert re.search(said, PAGE, re.S)


def test_the_limits_of_metrics_are_among_all_limits() -> None:
    page = (ROOT / "docs" / "limits.md").read_text()
    found = dict(re.findall(r"^\| (.+?) \| (.+?) \| .+? \|$", page, re.M))
    channels = "channels with series of their own: requests; attempts and costs; times"
    assert found["models with series of their own, since the start"] == str(MODELS - 1)
    assert found[channels] == f"{CHANNELS - 1}; {WITH_ATTEMPTS}; {WITH_TIMES}"
    assert found["balances of upstreams, one for each channel and currency"] == str(WITH_ATTEMPTS)
    assert found["workers of a host that are counted, with those that are being replaced"] == str(SLOTS)
    assert found["usage records that a worker has committed and not counted"] == f"{IDS // 2:,}, or 1 s"


def test_what_is_asked_of_prometheus_exists() -> None:
    for expression in expressions():
        named = re.findall(r"airelays_\w+", expression)
        assert named or "up{" in expression
        for name in named:
            assert name in SERIES, f"{name} in {expression}"
        if len(set(named)) == 1:
            labels = {*SERIES[named[0]].labels, "le", "instance"}
            for selector in re.findall(r"\{([^}]*)\}", expression):
                asked = set(re.findall(r"(\w+)(?:=~|!=|!~|=)", selector))
                assert asked <= labels, expression
            for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
                assert {one.strip() for one in grouped.split(",")} <= labels, expression


def test_every_metric_about_requests_is_on_the_dashboard_or_in_an_alert() -> None:
    asked = "\n".join(expressions())
    missing = {name for name in (family.name for family in ALL) if name not in asked}
    assert missing <= {
        "airelays_build_info", "airelays_cache_write_tokens",
        "airelays_workers", "airelays_channels", "airelays_channel_duration_seconds",
        "airelays_channel_upstream_cost_usd", "airelays_upstream_connections", "airelays_upstream_connections_limit",
        "airelays_trace_spans", "airelays_worker_open_fds", "airelays_writer_batch_records",
    }  # fmt: skip


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    subprocess.run([promtool, "check", "rules", str(ALERTS)], check=True, capture_output=True)
    config: dict[str, Any] = yaml.safe_load((SAMPLES / "prometheus.yaml").read_text())
    token = tmp_path / "token"
    token.write_text("x" * 32)
    config["scrape_configs"][0]["authorization"]["credentials_file"] = str(token)
    config["rule_files"] = [str(ALERTS)]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    subprocess.run([promtool, "check", "config", str(tmp_path / "prometheus.yml")], check=True, capture_output=True)
