"""The log of the source, as sums by day. The books begin with the import: what was spent before is in the balances."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from relay.importers.mapping import ImportRefused
from relay.importers.run import Run
from relay.importers.usage_sums import UsageChunk
from relay.models import Installation
from relay.usage.imported.sums import ImportedSum
from relay.usage.rollup import import_sums

_MOST: Final = 10**16  # of one sum, such as $10 million: a BIGINT holds the sums of many


def carry(run: Run) -> None:
    if not run.options.usage:
        return
    installation = run.rows.installation
    mark = installation.usage_mark if installation is not None else 0
    for chunk in run.source.usage(mark):
        before, mark = mark, chunk.mark
        run.report.counts["usage"].new += chunk.rows
        if run.applies:
            with run.batch():
                current = Installation.objects.select_for_update().get(pk=run.installation.pk)
                if current.usage_mark != before:
                    raise ImportRefused("Another import has carried the log over meanwhile. Run this one again.")
                import_sums(current, _sums(run, chunk))
                current.usage_mark = chunk.mark
                current.save(update_fields=["usage_mark"])
        run.options.progress(f"usage: {run.report.counts['usage'].new:,} rows")


def _sums(run: Run, chunk: UsageChunk) -> dict[ImportedSum, list[int]]:
    """The sums by rows here. Users, tokens and channels that are not carried over are 0."""
    found: dict[ImportedSum, list[int]] = defaultdict(lambda: [0] * 8)
    for key, added in chunk.sums.items():
        place = ImportedSum(
            key.day,
            run.rows.here("user", key.user) or 0,
            run.rows.here("token", key.token) or 0,
            run.rows.here("channel", key.channel) or 0,
            key.model[:120],
        )
        sums = found[place]
        for index, value in enumerate(added.values()):
            sums[index] = min(sums[index] + value, _MOST)
    return found
