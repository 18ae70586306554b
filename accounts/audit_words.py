"""Labels for the codes of the audit log, such as `token.reveal`, in the reader's language."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Model
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

# Targets that are not named like a model.
TARGETS: Final[dict[str, Any]] = {
    "chatgpt": _("ChatGPT sign-in"),
    "chatgptaccount": _("ChatGPT sign-in"),
    "code": _("redemption code"),
    "codes": _("redemption codes"),
    "connection": _("account at a sign-in provider"),
    "doctor": _("checks of the installation"),
    "email": _("e-mail address"),
    "import": _("import"),
    "installation": _("imported installation"),
    "key": _("API key"),
    "ledger": _("ledger"),
    "notices": _("notices"),
    "passkey": _("passkey"),
    "password": _("password"),
    "password-code": _("code to set a new password"),
    "password-reset": _("password reset"),
    "price": _("price"),
    "reauthenticate": _("confirmation of identity"),
    "request": _("request"),
    "second-factor": _("second factor"),
    "sign-in": _("sign-in"),
    "sign-in-code": _("code to sign in"),
    "sign-in-provider": _("sign-in provider"),
    "sign-up": _("sign-up"),
    "storedresponse": _("response"),
    "failure-rule": _("failure rule"),
    "socialapp": _("sign-in provider"),
    "usage": _("usage"),
    "wallet": _("balance"),
}
# What was done to the target.
VERBS: Final[dict[str, Any]] = {
    "add": _("added"),
    "add-gpt": _("added by its link"),
    "add-models": _("models added"),
    "apply": _("carried over"),
    "undo": _("undone"),
    "allow-api": _("use under /v1 allowed"),
    "auto-disable": _("taken out of service by the portal"),
    "auto-enable": _("put back into service by the portal"),
    "cancel": _("cancelled"),
    "change": _("changed"),
    "close": _("closed"),
    "confirm": _("confirmed"),
    "copy": _("copied"),
    "create": _("created"),
    "deduct": _("deducted from"),
    "delete": _("deleted"),
    "disable": _("disabled"),
    "enable": _("enabled"),
    "end": _("ended by hand"),
    "end-api": _("use under /v1 ended"),
    "expire": _("given up"),
    "export": _("exported"),
    "facts": _("facts filled in"),
    "fail": _("failed"),
    "import": _("imported"),
    "limited": _("limited again"),
    "limits": _("limits changed"),
    "mend": _("mended"),
    "open": _("opened"),
    "put-back": _("put back into service"),
    "quota": _("quota changed"),
    "redeem": _("redeemed"),
    "remove": _("removed"),
    "renew": _("renewed"),
    "reset": _("reset"),
    "reveal": _("shown in clear"),
    "run": _("run"),
    "revoke": _("revoked"),
    "rotate": _("rotated"),
    "set": _("set"),
    "show": _("shown in clear"),
    "tag": _("tagged"),
    "test": _("tested"),
    "top-up": _("topped up"),
    "unlimited": _("made unlimited"),
    "view-as": _("looked at as that user"),
}
# Actions with a label of their own, instead of one made of target and verb.
ACTIONS: Final[dict[str, Any]] = {
    "chatgpt.sign-in": _("Signed in with ChatGPT"),
    "chatgpt.sign-out": _("Signed out of ChatGPT"),
    "password-reset.send": _("Link for a new password mailed"),
    "setup": _("Portal set up"),
    "sign-in": _("Signed in"),
    "sign-in.lift": _("Limits on signing in lifted"),
    "sign-up": _("Signed up"),
    **{
        f"{group}.limited": _("Too many attempts refused")
        for group in (
            "sign-in",
            "sign-in-code",
            "sign-up",
            "password-reset",
            "password-code",
            "reauthenticate",
            "second-factor",
            "passkey",
            "staff-key",
        )
    },
}
# Details that are stored with an action.
DETAILS: Final[dict[str, Any]] = {
    "channel": _("channel"),
    "client_id": _("client ID"),
    "count": _("how many"),
    "days": _("days"),
    "file": _("file"),
    "id": _("ID"),
    "input": _("price of input"),
    "invitation": _("invitation"),
    "kind": _("kind"),
    "made": _("newly made"),
    "message": _("message"),
    "models": _("models"),
    "name": _("name"),
    "of": _("copy of"),
    "ok": _("passed"),
    "output": _("price of output"),
    "owner": _("owner"),
    "place": _("place"),
    "provider": _("provider"),
    "reason": _("reason"),
    "request_id": _("request"),
    "revealed": _("shown"),
    "server": _("server"),
    "staff_key": _("staff key"),
    "type": _("type"),
    "usd": _("US dollars"),
    "user": _("user"),
    "was": _("was"),
}


@cache
def _models() -> dict[str, type[Model]]:
    return {str(model._meta.model_name): model for model in apps.get_models()}


def target_label(name: str) -> str:
    """Return the label of a target: `apikey` → "API key"."""
    if name in TARGETS:
        return str(TARGETS[name])
    found = _models().get(name)
    return str(found._meta.verbose_name) if found is not None else name


def verb_label(name: str) -> str:
    """Return the label of what was done: `top-up` → "topped up"."""
    return str(VERBS.get(name, name))


def action_label(action: str) -> str:
    """Return the label of an action: `token.reveal` → "Token: shown in clear". The code itself when it is not known."""
    if action in ACTIONS:
        return str(ACTIONS[action])
    what, dot, done = action.partition(".")
    if not dot or done not in VERBS:
        return action
    return str(_("%(thing)s: %(done)s") % {"thing": capfirst(target_label(what)), "done": verb_label(done)})


def field_label(kind: str, name: str) -> str:
    """Return the label of a field of a model, or of a detail of an action."""
    found = _models().get(kind)
    if found is not None:
        try:
            return str(getattr(found._meta.get_field(name), "verbose_name", name))
        except FieldDoesNotExist:
            pass
    return str(DETAILS.get(name, name))
