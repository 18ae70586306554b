"""Django settings, read top to bottom. Every value that an installation may change comes from `portal.config`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.templatetags.static import static
from django.utils.translation import gettext_lazy

from portal import __version__, config, limits
from portal.installation import sources
from portal.lib import crypto, net
from portal.services import databases, redis

BASE_DIR = Path(__file__).resolve().parent.parent
# Templates and static files are beside the packages in a checkout; in an installed package they are in `portal/assets`.
_INSTALLED = BASE_DIR / "portal" / "assets"
_ASSETS = _INSTALLED if _INSTALLED.is_dir() else BASE_DIR

try:
    CONFIG = config.load()
    DATA_DIR = CONFIG.data_dir
    crypto.make_private(DATA_DIR, sources.default_data_dir() == DATA_DIR)
    SECRET_KEY = CONFIG.secret_key or crypto.load_or_create(DATA_DIR / "keys" / "secret_key")
    ENCRYPTION_KEYS = tuple(
        CONFIG.encryption_keys or crypto.load_or_create(DATA_DIR / "keys" / "encryption_keys").split()
    )
    TOKEN_KEY = (CONFIG.token_key or crypto.load_or_create(DATA_DIR / "keys" / "token_key")).encode()
except (sources.ConfigError, ValueError) as error:  # ValueError: of a key file
    sys.stderr.write(f"airelays: {error}\n")
    raise SystemExit(2) from None
except OSError as error:
    sys.stderr.write(
        f"airelays: the data folder {error.filename} cannot be used: {error.strerror}. Set AIRELAYS_DATA_DIR to a "
        "folder you can write.\n"
    )
    raise SystemExit(2) from None

VERSION = __version__
DEBUG = CONFIG.debug

# --- hosts and proxies ---------------------------------------------------------------------------------------------
_public = urlsplit(CONFIG.public_url)
ALLOWED_HOSTS = [*CONFIG.allowed_hosts, *([_public.hostname] if _public.hostname else [])]
if CONFIG.host not in {"127.0.0.1", "::1", "localhost"}:
    ALLOWED_HOSTS += net.own_names()  # other machines use the names and addresses of this one
CSRF_TRUSTED_ORIGINS = [f"{_public.scheme}://{_public.netloc}"] if _public.hostname else []
TRUSTED_PROXIES = net.parse_networks(CONFIG.trusted_proxies)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
_https = _public.scheme == "https"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _https
SECURE_SSL_REDIRECT = _https
SECURE_SSL_HOST = _public.netloc or None
CSRF_FAILURE_VIEW = "portal.pages.errors.csrf_failure"
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# --- applications --------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    # First, so that its runserver replaces Django's. Only for runserver: importing Twisted costs each worker of
    # `serve` 25 MB.
    *(["daphne"] if "runserver" in sys.argv else []),
    "unfold",  # before the admin: its templates replace the stock ones
    "portal.admin.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "django_ratelimit",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.socialaccount.providers.github",
    "allauth.socialaccount.providers.gitlab",
    "allauth.socialaccount.providers.google",
    "allauth.socialaccount.providers.microsoft",
    "allauth.mfa",
    "portal",
    "accounts",
    "relay",
]
MIDDLEWARE = [
    "portal.middleware.readable_address",
    "portal.middleware.client_address",
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "portal.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "portal.middleware.ReadableFormMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "accounts.forms_once.forms_once",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.preferences.PreferencesMiddleware",
    "accounts.view_as.ViewAsMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "accounts.sign_in.second_factor.SecondFactorMiddleware",
    "accounts.sign_in.provider_faults.ProviderFaultMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "portal.middleware.ServiceUnavailableMiddleware",
]
ROOT_URLCONF = "portal.urls"
RELAY_URLCONF = "relay.api.urls"
ASGI_APPLICATION = "portal.asgi.application"
RELAY_ONLY = False  # whether this process serves no pages and does no jobs: portal.relay_only.settings
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [_ASSETS / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.pages.shared.context.site",
            ]
        },
    }
]

# --- database ------------------------------------------------------------------------------------------------------
SQLITE: dict[str, Any] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": DATA_DIR / "state.sqlite3",
    "CONN_MAX_AGE": 0,
    "OPTIONS": {
        "timeout": limits.DATABASE_SECONDS,  # for a lock
        "transaction_mode": "IMMEDIATE",  # a deferred transaction that becomes a write fails at once when locked
        "init_command": "".join(
            f"PRAGMA {pragma};"
            for pragma in (
                "journal_mode=WAL",
                f"synchronous={CONFIG.sqlite_sync.upper()}",
                "journal_size_limit=67108864",
                "wal_autocheckpoint=4000",
                "temp_store=MEMORY",
                "cache_size=-1000",  # KiB per connection; each thread has a connection, and the system caches the file
            )
        ),
    },
    "TEST": {"NAME": None},
}
DATABASES: dict[str, dict[str, Any]] = {
    "default": databases.from_url(CONFIG.database_url, CONFIG.database_connections) if CONFIG.database_url else SQLITE
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- people --------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
    # Of imported users, until they sign in.
    "accounts.passwords.imported.ImportedPasswordHasher",
    "accounts.passwords.litellm.LiteLLMScrypt",
    "accounts.passwords.litellm.LiteLLMPbkdf2",
    "accounts.passwords.litellm.LiteLLMSha256",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
# Accepts user names and e-mail addresses; checks permissions as Django's ModelBackend does.
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "account_login"
MAILS = bool(CONFIG.email_host)
ACCOUNT_ADAPTER = "accounts.sign_in.adapter.AccountAdapter"
ACCOUNT_FORMS = {
    "login": "accounts.sign_in.forms.LoginForm",
    "signup": "accounts.sign_in.forms.SignupForm",
    "confirm_email_verification_code": "accounts.sign_in.forms.ConfirmEmailForm",
    "change_email": "accounts.sign_in.forms.ChangeEmailForm",
    "change_password": "accounts.sign_in.forms.ChangePasswordForm",
    "set_password": "accounts.sign_in.forms.SetPasswordForm",
    "reset_password_from_key": "accounts.sign_in.forms.ResetPasswordKeyForm",
}
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"  # on sign-up; accounts.sign_in.adapter exempts users that staff created
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_RESEND = True
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_CHANGE = True  # of an address with a typing error
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[AIRelays] "
ACCOUNT_PREVENT_ENUMERATION = MAILS  # without mail, the page itself must say that an address has an account
ACCOUNT_EMAIL_NOTIFICATIONS = True  # changes of password, addresses and second factors are mailed to their owner
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False  # do not mail addresses that have no account here
ACCOUNT_LOGIN_BY_CODE_ENABLED = MAILS
ACCOUNT_LOGIN_BY_CODE_TIMEOUT = 600
ACCOUNT_PASSWORD_RESET_BY_CODE_ENABLED = True
ACCOUNT_PASSWORD_RESET_BY_CODE_TIMEOUT = 600
PASSWORD_RESET_TIMEOUT = 86_400  # of links that staff send
ACCOUNT_LOGIN_ON_PASSWORD_RESET = True  # the second factor is asked for all the same
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_LOGOUT_ON_GET = False
# accounts.sign_in.throttle counts sign-ins instead, across all workers where Redis is configured.
ACCOUNT_RATE_LIMITS = {"login": None, "login_failed": None, "confirm_email": "5/10m/key"}
SOCIALACCOUNT_ADAPTER = "accounts.sign_in.adapter.SocialAdapter"
# The same e-mail address at a provider does not sign in to an account; its owner connects the two once. Providers whose
# addresses are trusted are marked in the admin, and connected at once.
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {"provider_class": "accounts.sign_in.oidc.CheckedOidcProvider"},
    **{name: {"OAUTH_PKCE_ENABLED": True} for name in ("github", "gitlab", "google", "microsoft")},
}
SOCIALACCOUNT_LOGIN_ON_GET = False
SOCIALACCOUNT_STORE_TOKENS = False
MFA_ADAPTER = "accounts.sign_in.adapter.MfaAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "AIRelays"
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = _public.scheme != "https"

# --- caches and rate limits of the pages ---------------------------------------------------------------------------
CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "airelays"}
}
if CONFIG.redis_url:
    CACHES["default"] = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": CONFIG.redis_url,
        "KEY_PREFIX": "airelays",
        "OPTIONS": redis.options(),
    }
# There is no channel layer: live pages read the database. Each websocket would have a connection to Redis for nothing,
# and end with it.
RATELIMIT_IP_META_KEY = "REMOTE_ADDR"  # set by portal.middleware.client_address
# E003, W001: LocMemCache counts per process, so that without Redis an address has up to N times the attempts with N
# workers; accepted for a single machine. W037: MySQL has no partial indexes and creates full ones.
SILENCED_SYSTEM_CHECKS = ["django_ratelimit.E003", "django_ratelimit.W001", "models.W037"]
if not _https:
    # Plain HTTP, on loopback or behind another TLS proxy: portal.checks warns where it matters.
    SILENCED_SYSTEM_CHECKS += ["security.W004", "security.W008", "security.W012", "security.W016"]

# --- e-mail --------------------------------------------------------------------------------------------------------
EMAIL_BACKEND = f"portal.serving.mail.{'BoundedBackend' if CONFIG.email_host else 'LogOnlyBackend'}"
EMAIL_HOST, EMAIL_PORT = CONFIG.email_host, CONFIG.email_port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = CONFIG.email_user, CONFIG.email_password
EMAIL_USE_TLS, EMAIL_USE_SSL = CONFIG.email_security == "starttls", CONFIG.email_security == "tls"
EMAIL_TIMEOUT = limits.MAIL_STEP_SECONDS
DEFAULT_FROM_EMAIL = SERVER_EMAIL = CONFIG.email_from

# --- pages ---------------------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "portal" / "locale"]
FORMAT_MODULE_PATH = ["portal.formats"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = CONFIG.time_zone
STATIC_URL = "static/"
STATIC_ROOT = _ASSETS / "staticfiles"
STATICFILES_DIRS = [_ASSETS / "static"]
SERVESTATIC_USE_FINDERS = True  # no collectstatic needed to run
SERVESTATIC_AUTOREFRESH = DEBUG
DATA_UPLOAD_MAX_NUMBER_FIELDS = limits.FORM_FIELDS
DATA_UPLOAD_MAX_MEMORY_SIZE = FILE_UPLOAD_MAX_MEMORY_SIZE = limits.PAGE_BYTES  # portal.serving.page_body has the limit

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "AIRelays",
    "SITE_HEADER": "AIRelays",
    "SITE_SUBHEADER": gettext_lazy("Portal administration"),
    "SITE_URL": "/",
    "SITE_ICON": lambda request: static("portal/icon.svg"),
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("portal/icon.svg")}],
    "STYLES": [lambda request: static("portal/admin.css")],
    "SCRIPTS": [lambda request: static("portal/admin.js")],
    "SHOW_LANGUAGES": True,
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "ENVIRONMENT": "portal.admin.site.environment",
    "DASHBOARD_CALLBACK": "portal.admin.site.dashboard",
    "BORDER_RADIUS": "6px",
    "COLORS": {
        "primary": {
            "50": "#ecfdf7", "100": "#d0f9ec", "200": "#a5f1da", "300": "#6be3c4", "400": "#33cca9", "500": "#14b896",
            "600": "#047862", "700": "#046453", "800": "#075a4f", "900": "#074b42", "950": "#022b27",
        }
    },
    "SIDEBAR": {"show_search": True, "show_all_applications": False, "navigation": "portal.admin.site.navigation"},
}  # fmt: skip

# --- logs ----------------------------------------------------------------------------------------------------------
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "portal.serving.logs.lines.JsonFormatter"
            if CONFIG.log_format == "json"
            else "portal.serving.logs.lines.TextFormatter"
        }
    },
    "filters": {
        "handshake": {"()": "portal.serving.logs.lines.RefusedHandshakeFilter"},
        "path": {"()": "portal.serving.logs.lines.PathFilter"},
        "refusal": {"()": "portal.serving.logs.lines.RefusalFilter"},
        "repeat": {"()": "portal.serving.logs.lines.RepeatFilter"},
    },
    "handlers": {
        "stderr": {
            "class": "portal.serving.logs.lines.StderrHandler",
            "formatter": "line",
            "filters": ["handshake", "path", "refusal", "repeat"],
        }
    },
    # DEBUG is for the portal's own code: libraries write headers and addresses with keys in them then.
    "root": {"handlers": ["stderr"], "level": "INFO" if CONFIG.log_level == "DEBUG" else CONFIG.log_level},
    "loggers": {
        **{name: {"level": CONFIG.log_level} for name in ("portal", "accounts", "relay")},
        "airelays.access": {"level": "INFO"},
        "django": {"handlers": [], "level": "WARNING", "propagate": True},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
        "uvicorn": {"handlers": [], "level": "WARNING", "propagate": True},
        "daphne": {"handlers": [], "level": "WARNING", "propagate": True},
        "asyncio": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},  # it logs every URL
    },
}
if CONFIG.logs_dir is not None:
    LOGGING["handlers"]["folder"] = {
        "class": "portal.serving.logs.files.FolderHandler",
        "formatter": "line",
        "filters": ["handshake", "path", "refusal"],
        "folder": str(CONFIG.logs_dir),
        "days": CONFIG.log_retention_days,
        "total_mb": CONFIG.log_max_total_mb,
        "file_mb": CONFIG.log_max_file_mb,
    }
    LOGGING["root"]["handlers"].append("folder")
