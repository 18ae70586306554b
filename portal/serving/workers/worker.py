"""The program of one of several workers: `worker.py LISTENING WORDS [COUNTS [METRICS]] [--relay-only]`.

The numbers are descriptors that it is given. COUNTS is the memory in which all workers count, METRICS the socket of the
port on which these can be read. On the second one it says that it lives. It ends when nobody is at the other end of
that any more, as when the supervisor was killed.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Final

_SAY_SECONDS: Final = 2.0  # between two words; the supervisor waits for many of them


def main() -> None:
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent.parent)
    listening, words = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    for one in (listening, words):
        os.set_inheritable(one.fileno(), False)
    words.setblocking(False)
    threading.Thread(target=_say_that_it_lives, args=(words,), name="airelays alive", daemon=True).start()
    if "--relay-only" in sys.argv[3:]:
        os.environ["DJANGO_SETTINGS_MODULE"] = "portal.relay_only.settings"
    else:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

    import django

    gc.disable()  # what is imported stays; the apps enable it
    django.setup()  # what serves imports models

    from portal.metrics.installed import installed
    from portal.serving.uvicorn import run_worker
    from portal.serving.workers.supervisor import READY

    more = [int(word) for word in sys.argv[3:] if word.isdecimal()]
    for number in more:
        os.set_inheritable(number, False)
    if more:
        installed.share(more[0])
    metrics = socket.socket(fileno=more[1]) if len(more) > 1 else None
    run_worker(listening, metrics, lambda: _say(words, READY))


def _say(words: socket.socket, what: bytes) -> bool:
    try:
        words.send(what)
    except BlockingIOError:
        return True  # the supervisor is behind
    except OSError:
        return False
    return True


def _say_that_it_lives(words: socket.socket) -> None:
    while _say(words, b"."):
        readable, _, _ = select.select([words], [], [], _SAY_SECONDS)
        if readable:  # nothing is ever sent here: the supervisor is gone
            break
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
