"""`python -m portal.management`: what `manage.py` does in a checkout, for installed packages and child processes."""

import gc
import os
import sys

gc.disable()  # as in `manage.py`

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    from portal.management.command_line import run

    run(["manage.py", *sys.argv[1:]])
