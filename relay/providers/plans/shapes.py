"""The forms in which a vendor lets apps use the plan of a person who signed in. Pure data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One form of sign-in and of requests. Instances are in the vendor's file."""

    # Its name in the setting PLAN_SHAPE and in rows.
    key: str
    # Where its own claims are in an ID token.
    namespace: str
    # Where people sign in, and where requests go, unless settings say otherwise.
    issuer: str
    base_url: str
    scope: str
    # The client id that the first sign-in names, which is issued another one then. Empty: the setting's.
    first_client: str = ""
    # What tokens are for (RFC 8707), empty: not said.
    resource: str = ""
    # The granted scope must contain it. Empty: nothing is checked.
    needed_scope: str = ""
    # Host of the callback address, and the port that it must have; 0: any free one.
    callback_host: str = "127.0.0.1"
    callback_port: int = 0
    # Its issuer says its addresses in a discovery document; otherwise they are those of its own paths.
    discovers: bool = True
    # Further members of the address at which one signs in.
    extra: tuple[tuple[str, str], ...] = ()
    # A refresh is sent as JSON, with this scope; empty: as a form.
    refresh_scope: str = ""
    # It has a sign-in by a code that is typed on another device.
    has_device: bool = False
    # Its requests carry the id of the account.
    account_header: str = ""
    # The header that names a conversation.
    session_header: str = "session-id"
    # The list of models is asked for by the version of a client.
    versioned: bool = False
    # Requests demand instructions, tools and reasoning that can be sent back.
    demands_whole: bool = False
    # Functions and tools of a free form are sent as an item of the input, not beside it.
    tools_as_item: bool = False
