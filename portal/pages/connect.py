from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from portal.pages.shared.scope import models_of, signed_in_user
from portal.pages.shared.snippets import sections


@login_required
def connect(request: HttpRequest) -> HttpResponse:
    """The page with settings for apps."""
    models = [model for model in models_of(signed_in_user(request)) if not model.name.endswith("*")]
    names = [model.name for model in models]
    chosen = request.GET.get("model", "")
    model = chosen if chosen in names else names[0] if names else "MODEL"
    image_model = next((one.name for one in models if "image_generation" in one.abilities), "")
    context = {
        "sections": sections(request, model=model, image_model=image_model),
        "models": names,
        "model": model,
        "here": "connect",
    }
    return render(request, "portal/connect.html", context)
