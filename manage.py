#!/usr/bin/env python
"""Django's command line for AIRelays Portal. `python manage.py help` lists what it can do."""

import gc
import os
import sys
from pathlib import Path

gc.disable()  # what is imported stays; looking for garbage among it takes a fifth of the start. The apps enable it.

_VENV = Path(__file__).resolve().parent / ".venv"
_PYTHON = str(_VENV / "bin" / "python")


def use_own_environment() -> None:
    """Go on in `.venv`, which `make run` makes, when the system's Python was called: it lacks what the portal needs.

    No syntax newer than Python 3.6, as in `portal.serving.bootstrap`.
    """
    if sys.prefix != sys.base_prefix:
        return
    if os.access(_PYTHON, os.X_OK):
        os.execv(_PYTHON, [_PYTHON, *sys.argv])  # noqa: S606  # the same program
    try:
        import django  # noqa: F401
    except ImportError:
        sys.stderr.write(
            "airelays: %s lacks the packages of the portal, and there is no %s. Make it with: make run\n"
            % (sys.executable, _VENV)
        )
        sys.exit(1)


def main() -> None:
    use_own_environment()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    from portal.management.command_line import run

    run(sys.argv)


if __name__ == "__main__":
    main()
