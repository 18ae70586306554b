from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from portal.pages.own_plan.offered import plan_models
from portal.pages.shared.agents import agent_snippets, agent_target
from portal.pages.shared.scope import signed_in_user
from portal.pages.shared.snippets import PLACEHOLDER, sections
from relay.catalog.first_call import FirstCall, choose_call
from relay.catalog.offers import own_name, usable_offers


@login_required
def connect(request: HttpRequest) -> HttpResponse:
    """The page with settings for apps."""
    user = signed_in_user(request)
    offers, own = usable_offers(user), plan_models(user, under_v1=True)
    wanted = own_name(offers, request.GET.get("model", ""))
    call = FirstCall("chat", wanted) if wanted in own else choose_call(offers, wanted=wanted)
    chosen = next((offer for offer in offers if call is not None and offer.model.name == call.model), None)
    image = choose_call(offers, "images")
    first = call or FirstCall("chat", "MODEL")
    target = agent_target(settings.CONFIG.origin(request), PLACEHOLDER, first.model, offers)
    context = {
        "sections": sections(
            request,
            call=first,
            image_model=image.model if image is not None else "",
            agents=agent_snippets(target),
        ),
        "models": [*own, *(offer.model.name for offer in offers if offer.model.name not in own)],
        "model": call.model if call is not None else "",
        "price": _("in your plan") if first.model in own else chosen.words if chosen is not None else "",
        "here": "connect",
    }
    return render(request, "portal/connect.html", context)
