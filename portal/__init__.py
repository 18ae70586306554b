"""The Django project: settings, entry points and pages. The only package that imports all others."""

import sys

# The command line of httpx, which it imports by itself where click and rich are installed: 5 MiB of each process.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # not to be imported

__version__ = "0.2.0"
