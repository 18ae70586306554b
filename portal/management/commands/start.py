from __future__ import annotations

import sys

from portal.management.listening import ListeningCommand
from portal.management.preparation import prepare
from portal.serving.banner import banner
from portal.serving.first_run import take_over
from relay.tokens.open_relay import open_again


class Command(ListeningCommand):
    help = (
        "Prepare the installation if that is needed (migrate, administrator, demo channel, first token), then serve "
        "it. What `make run` and `airelays serve` call."
    )

    open_again = False  # a person asks for an open relay, also one that was ended before

    def prepare(self, host: str, port: int) -> list[str]:
        if self.relay_only:  # sets up nothing: a portal with pages has done that
            if self.open_again:
                open_again()
            return self.take_as_it_is(host, port)
        lines: list[str] = []
        first = prepare(self._say)
        lines += take_over(self._say)
        if self.open_again:
            open_again()
        banner(host, port, first, sys.stdout.isatty(), lines.append)
        return lines

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
