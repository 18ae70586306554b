"""`airelays usage`: requests, tokens and cost, from the daily sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from portal.cli import options, output, startup
from portal.cli.input import values
from portal.lib import money

if TYPE_CHECKING:
    from relay.usage.reports import ReportSums

_GROUPINGS = ("day", "model", "token", "channel", "user")


@options.command("usage")
@click.option("--days", type=values.Number(1, 3660), default=30, show_default=True, help="Days, today included.")
@click.option("--by", type=values.OneOf(_GROUPINGS), default="model", show_default=True, help="A line for each.")
@options.json_option
def command(days: int, by: str, as_json: bool) -> None:
    """Sum up requests, tokens and cost."""
    with startup.database(), output.progress("Adding up"):
        from relay.usage.reports import ReportScope, report_lines, report_total

        scope = ReportScope.days(days)
        total = report_total(scope)
        lines = report_lines(scope, by)
    if as_json:
        named = [{by: str(line.label), **_as_json(line.sums)} for line in lines]
        output.as_json({"object": "usage", "days": days, "by": by, "total": _as_json(total), "data": named})
        return
    output.title("Usage")
    output.section(f"Last {days} days" if days > 1 else "Today")
    output.field("Requests", f"{total.requests:,} ({total.failed:,} failed)")
    output.field("Input", f"{total.input:,} tokens ({total.cached:,} from caches)")
    output.field("Output", f"{total.output:,} tokens")
    output.field("Cost", money.show(total.cost))
    if lines:
        output.section(f"By {by}")
    for line in lines:
        sums = line.sums
        output.line(
            f"{line.label!s:<40} {sums.requests:>9,} requests {sums.tokens:>14,} tokens {money.show(sums.cost):>12}"
        )


def _as_json(sums: ReportSums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        "failed": sums.failed,
        "input_tokens": sums.input,
        "cached_tokens": sums.cached,
        "output_tokens": sums.output,
        "cost_usd": money.plain(sums.cost),
    }
