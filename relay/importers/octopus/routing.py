"""Groups of Octopus: the names that clients ask for, and which models of which channels answer.

A group has an order or weights of its own there; here they belong to a channel, for every model that it serves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from relay.importers.description import Level, Remark, SourceModel, SourceRoute
from relay.importers.reading.row import Row, whole_of

_WEIGHTED: Final = "4"
_FAILOVER: Final = ("3", "failover")
_MANUAL: Final = "manual"


@dataclass(frozen=True, slots=True)
class Member:
    """A model of a channel that answers for a group."""

    id: str
    channel: str
    upstream: str
    priority: int  # the smallest is asked first
    weight: int


@dataclass(slots=True)
class Group:
    """A name that clients ask for."""

    id: str
    name: str
    mode: str
    pattern: str  # a regular expression of names that it stands for as well
    active: str  # the only member that is asked, of a group whose members people choose; empty: none
    members: list[Member] = field(default_factory=list)

    @property
    def is_manual(self) -> bool:
        return self.mode == _MANUAL

    @property
    def serving(self) -> list[Member]:
        """Those that are asked, the first one first. The only one of a group whose members people choose."""
        if self.is_manual:
            return [one for one in self.members if one.id == self.active]
        return sorted(self.members, key=lambda one: one.priority)


def read_groups(groups: Iterable[Row], items: Iterable[Row]) -> dict[str, Group]:
    found = {}
    for row in groups:
        group = Group(
            row.text("id"), row.text("name"), row.text("mode"), row.text("match_regex"), row.text("active_item_id")
        )
        found[group.id] = group
    for row in items:
        if (owner := found.get(row.text("group_id"))) is not None:
            member = Member(
                row.text("id"),
                row.text("channel_id"),
                row.text("model_name"),
                row.whole("priority"),
                max(1, whole_of(row.get("weight"), 1)),
            )
            owner.members.append(member)
    return found


@dataclass(slots=True)
class Place:
    """What a channel has of all the groups that it answers for."""

    routes: list[SourceRoute] = field(default_factory=list)
    priority: int = 0
    weight: int = 1
    remarks: list[Remark] = field(default_factory=list)


def places(groups: Iterable[Group]) -> dict[str, Place]:
    """The routes of each channel, with a priority and a weight that fit most of its groups."""
    found: dict[str, Place] = defaultdict(Place)
    orders: dict[str, list[int]] = defaultdict(list)
    weights: dict[str, list[int]] = defaultdict(list)
    for group in groups:
        serving = group.serving
        for place, member in enumerate(serving):
            channel = found[member.channel]
            if any(route.model == group.name for route in channel.routes):
                text = f"The channel answers for “{group.name}” with several models; it has the first one here."
                channel.remarks.append(Remark(text))
                continue
            channel.routes.append(SourceRoute(model=group.name, upstream=member.upstream))
            if group.mode in _FAILOVER and len(serving) > 1:
                orders[member.channel].append(len(serving) - place)
            if group.mode == _WEIGHTED:
                weights[member.channel].append(member.weight)
    for channel_id, all_of in found.items():
        all_of.priority = _common(orders[channel_id], all_of.remarks, "places in the order")
        all_of.weight = max(1, _common(weights[channel_id], all_of.remarks, "weights"))
    return found


def _common(values: list[int], remarks: list[Remark], word: str) -> int:
    if len(set(values)) > 1:
        remarks.append(Remark(f"Its {word} differ by group; it has the most frequent one here."))
    return max(sorted(set(values), reverse=True), key=values.count, default=0)


def models(groups: Iterable[Group], readers: tuple[str, ...]) -> Iterator[SourceModel]:
    """`readers`: ids of the users who may use them."""
    for group in groups:
        remarks = []
        if group.pattern:
            text = "It also stood for names that fit a pattern; a model here has further names, which are written out."
            remarks.append(Remark(text, Level.LEFT_OUT))
        if group.is_manual and len(group.members) > 1:
            remarks.append(Remark("Of its members the chosen one is carried over: it was the only one that was asked."))
        if not group.serving:
            remarks.append(Remark("No channel answers for it.", Level.NOTE))
        yield SourceModel(id=group.name, name=group.name, users=readers, remarks=tuple(remarks))
