"""Sign-in at an OpenID Connect server: PKCE and a nonce are sent, the ID token is verified, all answers are doubted.

OpenID Connect Core 1.0, 3.1.3.7 and 5.3.2; RFC 9700, 2.1.1.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Any, Final

from allauth.account.internal.decorators import login_not_required
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _

from accounts.sign_in.discovery import configuration_of, get_object
from accounts.sign_in.provider_faults import ProviderFault
from portal.lib.lazy import LazyModule

if TYPE_CHECKING:
    import jwt
else:
    jwt = LazyModule("jwt")  # as allauth has it

# Signatures that a public key verifies; `none` and those with a shared secret are not among them.
_ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
_REQUIRED: Final = ("iss", "sub", "aud", "exp", "iat")
_LEEWAY: Final = 60  # seconds by which clocks may differ
_UID_LENGTH: Final = 191  # of allauth's column; a `sub` may have 255


class CheckedOidcAdapter(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]  # allauth has no types
    """allauth's adapter, which takes nothing that the server says for granted. Raises ProviderFault."""

    nonce = ""  # which this sign-in sent

    @property
    def openid_config(self) -> dict[str, Any]:
        if not hasattr(self, "_openid_config"):
            self._openid_config = configuration_of(self.get_provider().server_url)
        config: dict[str, Any] = self._openid_config
        return config

    def complete_login(self, request: HttpRequest, app: Any, token: Any, **kwargs: Any) -> Any:
        claims = self._verified_claims(app, kwargs["response"].get("id_token"))
        data: dict[str, Any] = {"id_token": claims, "userinfo": claims}
        if app.settings.get("fetch_userinfo", True) and self.openid_config.get("userinfo_endpoint"):
            headers = {"Authorization": f"Bearer {token.token}"}
            told = get_object(self.openid_config["userinfo_endpoint"], _("its user information"), headers)
            if told.get("sub") != claims["sub"]:
                raise ProviderFault(_("its user information is about somebody else than its ID token"))
            data["userinfo"] = {**claims, **told}
            if "email" in told:  # whether it is verified is said where it is said
                data["userinfo"]["email_verified"] = told.get("email_verified", False)
        return self.get_provider().sociallogin_from_response(request, _storable(data))

    def _verified_claims(self, app: Any, id_token: Any) -> dict[str, Any]:
        if not isinstance(id_token, str) or not id_token:
            raise ProviderFault(_("it sent no ID token"))
        try:
            header = jwt.get_unverified_header(id_token)
            algorithm = str(header.get("alg"))
            if algorithm not in _ALGORITHMS:
                raise ProviderFault(_("its ID token has no signature that can be verified"))
            claims: dict[str, Any] = jwt.decode(
                id_token,
                self._key(header.get("kid"), algorithm),
                algorithms=[algorithm],
                audience=app.client_id,
                issuer=self.openid_config["issuer"],
                leeway=_LEEWAY,
                options={"require": list(_REQUIRED)},
            )
        except jwt.PyJWTError as error:
            raise ProviderFault(_("its ID token is not valid: %(why)s") % {"why": str(error)[:200]}) from None
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), self.nonce.encode()) or not self.nonce:
            raise ProviderFault(_("its ID token was made for another sign-in"))
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else app.client_id) != app.client_id:
            raise ProviderFault(_("its ID token was made for another application"))
        sub = claims["sub"]
        if not isinstance(sub, str) or not 0 < len(sub) <= 255 or not (sub.isascii() and sub.isprintable()):
            raise ProviderFault(_("it names people in a way that is not allowed"))
        return claims

    def _key(self, kid: Any, algorithm: str) -> Any:
        listed = get_object(self.openid_config["jwks_uri"], _("its keys")).get("keys")
        for key in listed if isinstance(listed, list) else ():
            if not isinstance(key, dict) or key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
                continue
            if kid is None or key.get("kid") == kid:
                try:
                    return jwt.PyJWK.from_dict(key, algorithm).key
                except jwt.PyJWTError:
                    continue
        raise ProviderFault(_("its ID token is signed with a key that it does not list"))


def _storable(value: Any) -> Any:
    """What a server said without what PostgreSQL does not store: NUL, and halves of surrogate pairs."""
    if isinstance(value, dict):
        return {_storable(name): _storable(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_storable(member) for member in value]
    return value.replace("\0", "").encode("utf-8", "ignore").decode() if isinstance(value, str) else value


class CheckedOidcProvider(OpenIDConnectProvider):  # type: ignore[misc]  # allauth has no types
    """allauth's provider, which sends PKCE and a nonce, and reads claims strictly."""

    package = "allauth.socialaccount.providers.openid_connect"  # where its URLs are
    oauth2_adapter_class = CheckedOidcAdapter
    pkce_enabled_default = True

    def redirect(
        self, request: HttpRequest, process: str, next_url: str | None = None, data: Any = None, **kwargs: Any
    ) -> Any:
        nonce = secrets.token_urlsafe(24)
        asked = kwargs.pop("auth_params", None)
        params = {**(self.get_auth_params() if asked is None else asked), "nonce": nonce}
        return super().redirect(request, process, next_url, data, auth_params=params, nonce=nonce, **kwargs)

    def extract_uid(self, data: Any) -> str:
        uid = str(super().extract_uid(data))
        return uid if len(uid) <= _UID_LENGTH else f"sha256:{hashlib.sha256(uid.encode()).hexdigest()}"

    def extract_email_addresses(self, data: Any) -> list[EmailAddress]:
        """The address, verified only where the server says so; some say it as a text."""
        found: list[EmailAddress] = super().extract_email_addresses(data)
        for address in found:
            address.verified = address.verified is True or address.verified == "true"
        return found


class _CallbackView(OAuth2CallbackView):  # type: ignore[misc]  # allauth has no types
    def _get_state(self, request: HttpRequest, provider: Any) -> Any:
        state, response = super()._get_state(request, provider)
        if state is not None:
            self.adapter.nonce = str(state.get("nonce", ""))
        return state, response


@login_not_required  # type: ignore[untyped-decorator]  # allauth has no types
def login(request: HttpRequest, provider_id: str) -> HttpResponseBase:
    """Send somebody to an OpenID Connect server."""
    return _view(OAuth2LoginView, request, provider_id)


@login_not_required  # type: ignore[untyped-decorator]  # allauth has no types
def callback(request: HttpRequest, provider_id: str) -> HttpResponseBase:
    """Take somebody back from an OpenID Connect server."""
    return _view(_CallbackView, request, provider_id)


def _view(view: Any, request: HttpRequest, provider_id: str) -> HttpResponseBase:
    try:
        response: HttpResponseBase = view.adapter_view(CheckedOidcAdapter(request, provider_id))(request)
    except SocialApp.DoesNotExist:
        raise Http404 from None
    return response
