"""The state of one import while its parts run.

Every batch of rows is one transaction with the notes of what came from where, so that an import that was killed goes
on where it was. Balances change by entries of the ledger alone; what is made or changed is in the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeVar

from django.db import transaction

from accounts.models import AuditEvent
from relay.importers.description import Source
from relay.importers.mapping import AT_ONCE, ImportRefused, Rows
from relay.importers.report import Report
from relay.models import Installation, Lease

_T = TypeVar("_T")
LEASE: Final = "import"
_LEASE_SECONDS: Final = 120.0  # a batch takes far less


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the person who imports has decided."""

    apply: bool = False  # otherwise nothing is written
    name: str = ""  # of the installation; empty: that of its program
    staff: bool = False  # administrators there become staff here
    merge: frozenset[str] = frozenset()  # names of users who are the same person as the user of that name here
    allow: tuple[str, ...] = ()  # addresses outside the public Internet that channels may use
    direct: bool = False  # channels whose proxy cannot be used here are called without one
    usage: bool = False  # the log is carried over, into sums by day
    progress: Callable[[str], None] = lambda _: None


@dataclass(slots=True)
class Run:
    """The state of one import."""

    source: Source
    options: Options
    report: Report
    rows: Rows
    memory: dict[str, Any] = field(default_factory=dict)  # of parts, such as names that are taken
    # Ids of users who are disabled there, and the same person as somebody here: no token of theirs works.
    stopped: set[str] = field(default_factory=set)

    @property
    def applies(self) -> bool:
        return self.options.apply

    @property
    def installation(self) -> Installation:
        return self.rows.written

    def hold(self) -> None:
        """Keep others from importing. Raises ImportRefused when one does."""
        if not Lease.hold(LEASE, _LEASE_SECONDS):
            raise ImportRefused("Another import is running. Wait for its end, or two minutes after it was killed.")

    @contextmanager
    def batch(self) -> Iterator[None]:
        """One transaction, while this process may import. Raises ImportRefused when another one does."""
        self.hold()
        with transaction.atomic():
            yield

    def audit(self, action: str, targets: Iterable[tuple[Any, str]]) -> None:
        """Write that rows were made or changed: `(row here, id in the source)`. Inside the caller's transaction."""
        name = self.installation.name
        AuditEvent.objects.bulk_create(
            [AuditEvent.entry(action, None, target, source=name, source_id=of) for target, of in targets],
            batch_size=AT_ONCE,
        )


def batched(items: Iterable[_T], size: int = AT_ONCE) -> Iterator[list[_T]]:
    """Lists of so many items each."""
    iterator = iter(items)
    while found := list(islice(iterator, size)):
        yield found
