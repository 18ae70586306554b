"""CC Switch: an app that keeps the settings of coding agents, and takes new ones from links.

Source: its documentation of deep links (docs/user-manual/en/5-faq/5.3-deeplink.md) and the reader of them
(src-tauri/src/deeplink) in farion1231/cc-switch 3.20, August 2026. It asks before it imports, and shows all but keys.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

from portal.clients.app import ClientApp
from portal.clients.target import Target


def import_link(app: ClientApp, target: Target) -> str:
    """The link that adds the portal to an app. It has the token in it. Empty where CC Switch cannot do so."""
    if app.imported is None:
        return ""
    asked = {
        "resource": "provider",
        "app": app.key,
        "name": "AIRelays",
        "homepage": target.address,
        "apiKey": target.token,
        **app.imported(target),
    }
    return f"ccswitch://v1/import?{urlencode(asked, quote_via=quote)}"
