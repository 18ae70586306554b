"""E-mail backends: one that waits for the mail server no longer than it may, and one while none is configured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend
from django.db import transaction

from portal import limits
from portal.services import outside

logger = logging.getLogger(__name__)


class BoundedBackend(EmailBackend):
    """Sends by SMTP. Raises NotAnswering, an OSError, when the mail server has not taken a mail in time.

    Within a transaction mails are sent after it, and failures only logged: everybody else would wait for the mail
    server, too. Nor does anybody wait for mails that are sent `unawaited`.
    """

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        if outside.in_transaction():
            transaction.on_commit(partial(self._send_later, list(email_messages)))
            return len(email_messages)
        send = super().send_messages
        if outside.unawaited.get():
            outside.later("the mail server", limits.MAIL_SECONDS, send, list(email_messages))
            return len(email_messages)
        return outside.call("the mail server", limits.MAIL_SECONDS, send, email_messages) or 0

    def _send_later(self, email_messages: Sequence[Any]) -> None:
        try:
            self.send_messages(email_messages)
        except OSError as error:
            logger.error("a mail could not be sent: %s", error)


class LogOnlyBackend(BaseEmailBackend):
    """Sends nothing, and logs a warning for each e-mail."""

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        for message in email_messages:
            logger.warning("an e-mail was not sent, since AIRELAYS_EMAIL_HOST is not set: %s", message.subject)
        return 0
