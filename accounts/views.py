"""Sign-in, and the change of one's password."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth import views as auth
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse_lazy
from django.utils.decorators import method_decorator
from django_ratelimit.decorators import ratelimit

from accounts.models import AuditEvent

TRIES_PER_ADDRESS = "20/5m"
TRIES_PER_NAME = "8/5m"


def too_many(request: HttpRequest) -> HttpResponse:
    """The page for somebody who tried too often."""
    response = render(request, "accounts/too_many.html", status=429)
    response["Retry-After"] = "300"
    return response


@method_decorator(ratelimit(key="ip", rate=TRIES_PER_ADDRESS, method="POST", block=False, group="sign-in:ip"), name="dispatch")
@method_decorator(ratelimit(key="post:username", rate=TRIES_PER_NAME, method="POST", block=False, group="sign-in:name"), name="dispatch")
class SignIn(auth.LoginView):
    template_name = "accounts/login.html"
    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if getattr(request, "limited", False):
            AuditEvent.write("sign-in.limited", None, None, request.META.get("REMOTE_ADDR"), name=request.POST.get("username", "")[:150])
            return too_many(request)
        return super().dispatch(request, *args, **kwargs)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        AuditEvent.write("sign-in", form.get_user(), None, self.request.META.get("REMOTE_ADDR"))
        return super().form_valid(form)


class ChangePassword(auth.PasswordChangeView):
    template_name = "accounts/password.html"
    success_url = reverse_lazy("home")

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        AuditEvent.write("password.change", self.request.user, None, self.request.META.get("REMOTE_ADDR"))
        messages.success(self.request, "Your password is changed.")
        return response
