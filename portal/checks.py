"""System checks of an installation, run by `manage.py check --deploy` and when the server starts."""

from __future__ import annotations

import stat
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.utils.translation import gettext as _

from portal.lib.crypto import readable_by_others


@register()
def key_files(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    """Key files that others can read are an error. That the group can is a warning: Kubernetes (`fsGroup`) gives its
    volumes to a group at each mount, whatever their modes were.
    """
    folder, found = settings.DATA_DIR / "keys", list[CheckMessage]()
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if not path.is_file():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o007:
            found.append(
                Error(
                    _("The key file %(path)s can be read by other users of this machine.") % {"path": path},
                    hint=_("Run: %(command)s") % {"command": f"chmod 600 {path}"},
                    id="portal.E001",
                )
            )
        elif mode & 0o070:
            found.append(
                Warning(
                    _("The key file %(path)s can be read by its group.") % {"path": path},
                    hint=_(
                        "Run: %(command)s. Where a volume is given to a group at each mount (fsGroup), see that nobody "
                        "else is in it."
                    )
                    % {"command": f"chmod 600 {path}"},
                    id="portal.W008",
                )
            )
    return found


@register(deploy=True)
def settings_without_effect(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    """Settings of AIRelays 0.x that the portal does not have, and variables that nothing reads."""
    return [Warning(notice.translated(_), id="portal.W007") for notice in settings.CONFIG.notices]


@register()
def data_folder(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    """The data folder is closed at each start; this says what could not be closed, such as another user's folder.

    What only the group can enter is a warning, as for key files.
    """
    folder = settings.DATA_DIR
    if not folder.is_dir() or not readable_by_others(folder):
        return []
    open_to_all = bool(stat.S_IMODE(folder.stat().st_mode) & 0o007)
    mine = [folder / name for name in ("state.sqlite3", "state.sqlite3-wal", "state.sqlite3-shm", "uploads")]
    found = [path for path in mine if open_to_all and path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o007]
    return [
        Warning(
            _("The data folder %(path)s can be entered by other users of this machine.") % {"path": folder},
            hint=_("Give it to the user that runs the portal, and run: %(command)s")
            % {"command": f"chmod 700 {folder}"},
            id="portal.W009",
        ),
        *(
            Error(
                _("%(path)s can be read by other users of this machine.") % {"path": path},
                hint=_("Give it to the user that runs the portal, and run: %(command)s")
                % {"command": f"chmod {'700' if path.is_dir() else '600'} {path}"},
                id="portal.E002",
            )
            for path in found
        ),
    ]


@register(deploy=True)
def deployment(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    config, found = settings.CONFIG, list[CheckMessage]()
    loopback = config.host in {"127.0.0.1", "::1", "localhost"}
    if not loopback and not config.public_url:
        found.append(
            Warning(
                _("The portal listens on %(host)s but does not know the address that users type.")
                % {"host": config.host},
                hint=_(
                    "Set AIRELAYS_PUBLIC_URL, such as https://ai.example.org; links, cookies and host checks depend "
                    "on it."
                ),
                id="portal.W001",
            )
        )
    if not config.require_bearer_auth and config.open_relay_on_network:
        found.append(
            Warning(
                _("The relay is open to the network: everybody who reaches it spends the money of your upstreams."),
                hint=_("Set AIRELAYS_REQUIRE_BEARER_AUTH=true, or AIRELAYS_OPEN_RELAY_ON_NETWORK=false."),
                id="portal.W011",
            )
        )
    if "*" in config.allowed_hosts and not config.public_url:
        found.append(
            Warning(
                _(
                    "The pages answer to any host name, and links in e-mails are written with it: a stranger can have "
                    "a link to their own server mailed to a user."
                ),
                hint=_("Set AIRELAYS_PUBLIC_URL, or name the hosts in AIRELAYS_ALLOWED_HOSTS."),
                id="portal.W010",
            )
        )
    if config.public_url and not config.public_url.startswith("https://") and not loopback:
        found.append(
            Warning(
                _("Users reach the portal without TLS: passwords and tokens can be read on the way."),
                hint=_("Put a TLS proxy in front."),
                id="portal.W002",
            )
        )
    if config.public_url.startswith("https://") and not config.trusted_proxies:
        found.append(
            Warning(
                _(
                    "No trusted proxy is set, so the portal cannot see that a request came over TLS, nor from which "
                    "address."
                ),
                hint=_("Set AIRELAYS_TRUSTED_PROXIES to your proxy's address, such as 127.0.0.1."),
                id="portal.W003",
            )
        )
    if config.signup == "open" and not config.email_host:
        found.append(
            Warning(
                _(
                    "Sign-up is open, but no mail server is set: addresses cannot be confirmed, so anybody may claim "
                    "any address, those of the allowed domains, too."
                )
                if config.signup_domains
                else _(
                    "Sign-up is open, but no mail server is set: addresses cannot be confirmed, so anybody may claim "
                    "any address."
                ),
                hint=_("Set AIRELAYS_EMAIL_HOST, or AIRELAYS_SIGNUP=invitation."),
                id="portal.W005",
            )
        )
    if config.staff_mfa and not config.public_url.startswith("https://") and not loopback:
        found.append(
            Warning(
                _("Staff need a second factor, but passkeys work over TLS only."),
                hint=_("Put a TLS proxy in front and set AIRELAYS_PUBLIC_URL."),
                id="portal.W006",
            )
        )
    if config.workers > 1 and not config.redis_url:
        found.append(
            Warning(
                _(
                    "Each of the %(n)d workers counts rate limits alone: a limit of 60 requests a minute lets "
                    "%(many)d through."
                )
                % {"n": config.workers, "many": 60 * config.workers},
                hint=_(
                    "Set AIRELAYS_REDIS_URL, such as redis://127.0.0.1:6379/0. Money needs no Redis: balances and "
                    "budgets hold for all workers."
                ),
                id="portal.W004",
            )
        )
    return found
