"""The e-mail backend that is used while no mail server is configured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend

logger = logging.getLogger(__name__)


class LogOnlyBackend(BaseEmailBackend):
    """Sends nothing, and logs a warning for each e-mail."""

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        for message in email_messages:
            logger.warning("an e-mail was not sent, since AIRELAYS_EMAIL_HOST is not set: %s", message.subject)
        return 0
