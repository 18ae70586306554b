"""Django settings of a process that only relays: those of the portal, without the applications of its pages.

For the workers of `serve --relay-only` alone. Commands that look at the database's tables take `portal.settings`: where
applications are missing, their tables would seem to be left over.
"""

from portal import settings as _portal

globals().update({name: value for name, value in vars(_portal).items() if name.isupper()})

RELAY_ONLY = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "portal.relay_only.apps.SecondFactorsConfig",
    "portal",
    "accounts",
    "relay",
]
MIDDLEWARE: list[str] = []
ASGI_APPLICATION = "portal.relay_only.asgi.application"
ROOT_URLCONF = _portal.RELAY_URLCONF
# Checks permissions as allauth's does, which signs people in besides.
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
