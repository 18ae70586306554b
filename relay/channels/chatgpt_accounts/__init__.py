"""Users' own sign-ins at ChatGPT: to sign in and out, to refresh, and to take over those of AIRelays 0.x."""

from relay.channels.chatgpt_accounts.adoption import adopt
from relay.channels.chatgpt_accounts.report import status_of

__all__ = ["adopt", "status_of"]
