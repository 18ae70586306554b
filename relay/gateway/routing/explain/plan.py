"""What a user's own plan does to a request of theirs, for explanations. Only its owner is told of it. Synchronous."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext as _

from relay.gateway.access.authorization import plan_model
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class OwnPlan:
    """What a user's own plan means for a request. Texts are in the active language."""

    channel: str  # that answers the request, and nothing else does; empty: the plan does not
    said: str
    obstacle: str = ""  # why it would fail


def explain_plan(snapshot: Snapshot, caller: Caller, name: str) -> OwnPlan | None:
    """What the plan of a caller does to a request for a model; None: there is none, or it has no such model."""
    plan = snapshot.plans.get(caller.user_id)
    model = plan_model(plan, name) if plan is not None else None
    if plan is None or model is None:
        return None
    if caller.models is not None:
        return OwnPlan(
            "",
            _("Your own ChatGPT plan has this model, but does not serve tokens limited to models of the portal."),
        )
    if caller.anybody:
        return OwnPlan(
            "",
            _("Your own ChatGPT plan has this model, but does not serve a relay that is open to other machines."),
        )
    if not plan.api:
        return OwnPlan(
            "", _("Your own ChatGPT plan answers in the playground. Its use under /v1 is off: see the page “ChatGPT”.")
        )
    gone = _("Nobody is signed in for your ChatGPT plan: sign in on the page “ChatGPT”, or turn it off there.")
    return OwnPlan(
        model.routes[0].channel.name,
        _("Your own ChatGPT plan answers, before any channel, and nothing else answers in its place."),
        gone if plan.signed_out else "",
    )
