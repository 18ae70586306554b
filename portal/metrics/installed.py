"""The metrics of this process: the memory that it shares with other workers, and its own slot in it."""

from __future__ import annotations

import logging
import time
from typing import Final

from django.conf import settings

from portal.config import Config
from portal.lib import net
from portal.metrics.counts.memory import Memory, Slot, new_file
from portal.metrics.counts.records import RecordCounter
from relay.gateway.snapshot.cache import snapshot_cache
from relay.models.model_names import is_in_family

logger: Final = logging.getLogger(__name__)
PATH: Final = "/metrics"
OTHER: Final = "other"  # the label of all models, or channels, that have none of their own
_MOST_KNOWN: Final = 5_000  # names of models


def turned_on(config: Config) -> bool:
    return bool(config.metrics_port or config.metrics_token)


def on_the_portals_port(config: Config) -> bool:
    """Whether they are beside the pages: without a port of their own, and never without a token."""
    return bool(config.metrics_token) and not config.metrics_port


def why_not_open(config: Config, port: int) -> str:
    """Why the metrics may not be served so beside the portal's own port: other machines could read them, for one.

    Empty if they may.
    """
    if config.metrics_port == port:
        return (
            f"METRICS_PORT={port} is the portal's own port. Choose another one, or none: METRICS_TOKEN alone is enough."
        )
    if config.metrics_port and not config.metrics_token and not net.is_loopback_name(config.metrics_host):
        return (
            f"METRICS_HOST={config.metrics_host} lets other machines read the metrics. Set METRICS_TOKEN as well, "
            "which they have to send, or leave METRICS_HOST out."
        )
    return ""


class Labels:
    """The names under which models are counted: those of the catalogue, of which clients cannot invent any."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._snapshot: object = None

    def __call__(self, name: str) -> str:
        """A member of a family, which clients name as they like, counts under the family's name; "": the other ones."""
        snapshot = snapshot_cache.snapshot
        if snapshot is not self._snapshot or len(self._known) >= _MOST_KNOWN:
            self._snapshot, self._known = snapshot, {}
        found = self._known.get(name)
        if found is None:
            found = name
            if name not in snapshot.models:
                families = [family for family in snapshot.models if is_in_family(name, family)]
                found = max(families, key=len, default="")
            self._known[name] = found = "" if found == OTHER else found
        return found


class Installed:
    """What this process has of the metrics, once it serves."""

    def __init__(self) -> None:
        self.memory: Memory | None = None
        self.slot: Slot | None = None
        self.counter: RecordCounter | None = None
        self.label_of = Labels()

    def share(self, file: int) -> None:
        """Count in a memory that other workers have, too."""
        self.memory = Memory(file)

    def begin(self) -> RecordCounter | None:
        """Take a slot to count in; None when the metrics are off, or there is none."""
        if self.counter is not None or not turned_on(settings.CONFIG):
            return self.counter
        try:
            if self.memory is None:
                self.share(new_file(round(time.time() * 1000)))
        except OSError as error:
            logger.error("there are no metrics: %s", error)
        if self.memory is None:
            return None
        self.slot = next((slot for slot in self.memory.slots if self._may_take(self.memory, slot)), None)
        if self.slot is None:
            logger.error("this worker is missing in the metrics: too many others have not ended yet")
            return None
        self.counter = RecordCounter(self.memory, self.slot, self.label_of)
        return self.counter

    @staticmethod
    def _may_take(memory: Memory, slot: Slot) -> bool:
        """A slot in which nothing waits to be counted; the others are `portal.metrics.counts.recovery`'s."""
        if not memory.take(slot):
            return False
        if slot.is_clean:
            return True
        memory.give_back(slot)
        return False


installed: Final = Installed()
