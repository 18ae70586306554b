"""Creates the virtual environment of the portal. The Makefile runs it with the system's Python, whatever its version.

usage: bootstrap.py run | dev

Uses only the standard library and no syntax newer than Python 3.6, so that an old Python still reports what is wrong.
"""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
OLDEST = (3, 11)


def fail(message):
    sys.stderr.write("airelays: " + message + "\n")
    sys.exit(1)


def newer_python():
    """A newer Python on the PATH that is supported, or None."""
    for name in ("python3.13", "python3.12", "python3.11", "python3.14"):
        path = shutil.which(name)
        if (
            path
            and subprocess.call(
                [path, "-c", "import venv, ensurepip"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            == 0
        ):
            return path
    return None


def check_python():
    """Continue with a supported Python, or exit with a message that says what to install."""
    if sys.version_info[:2] >= OLDEST:
        return
    other = newer_python()
    if other and not os.environ.get("AIRELAYS_BOOTSTRAPPED"):
        os.environ["AIRELAYS_BOOTSTRAPPED"] = "1"
        os.execv(other, [other] + sys.argv)
    fail(
        "Python %d.%d or newer is needed, and %s is %d.%d. Install a newer one, then name it: make run "
        "PYTHON=python3.12" % (OLDEST + (sys.executable,) + tuple(sys.version_info[:2]))
    )


def check_venv_module():
    if os.path.exists(PYTHON):
        return
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail(
            "this Python cannot make virtual environments. Install the package that holds the module: apt install "
            "python%d.%d-venv" % tuple(sys.version_info[:2])
        )


def check_folder():
    if not os.access(ROOT, os.W_OK):
        fail(
            "the folder %s cannot be written, and the environment is made in it. Copy the portal to a folder of yours."
            % ROOT
        )


def data_dir():
    named = os.environ.get("AIRELAYS_DATA_DIR") or os.environ.get("AIRELAY_DATA_DIR")
    if named:
        return os.path.abspath(os.path.expanduser(named))
    home = os.path.expanduser("~")
    if home == "~":  # neither HOME nor an entry in the list of users, as in some containers
        fail("there is no home folder here. Set AIRELAYS_DATA_DIR to the folder of the portal's data.")
    current, legacy = os.path.join(home, ".airelays"), os.path.join(home, ".airelay")
    return legacy if os.path.isdir(legacy) and not os.path.exists(current) else current


def has_settings_file():
    """Whether a file may name another port or data folder: such files are read once everything is installed."""
    if any(os.environ.get(prefix + "CONFIG") for prefix in ("AIRELAYS_", "AIRELAY_", "OPENAI_ENDPOINT_")):
        return True
    files = [os.path.join("~", ".config", name, "config.toml") for name in ("airelays", "airelay")]
    return any(os.path.exists(os.path.expanduser(file)) for file in [*files, ".env"])


def check_data_dir():
    """Exit with a message unless the data folder, or its nearest existing parent, is writable."""
    if not (os.environ.get("AIRELAYS_DATA_DIR") or os.environ.get("AIRELAY_DATA_DIR")) and has_settings_file():
        return
    wanted = path = data_dir()
    while not os.path.exists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path) or not os.access(path, os.W_OK):
        fail("the data folder %s cannot be written. Set AIRELAYS_DATA_DIR to a folder you can write." % wanted)


def check_port():
    """Exit with a message if the port is in use, before anything is installed."""
    if not os.environ.get("AIRELAYS_PORT") and has_settings_file():
        return
    host, text = os.environ.get("AIRELAYS_HOST") or "127.0.0.1", os.environ.get("AIRELAYS_PORT") or "8080"
    if not re.match("[0-9]{1,5}$", text) or not 0 < int(text) < 65536:
        fail("PORT=%s is not a port; choose one from 1 to 65535" % text)
    probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, int(text)))
    except (OSError, OverflowError) as error:
        fail(
            "cannot listen on %s:%s (%s). Stop the program that uses it, or choose another port: PORT=%d make run"
            % (host, text, getattr(error, "strerror", error), int(text) % 65535 + 1)
        )
    finally:
        probe.close()


def fingerprint(files):
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for name in files:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def install(files, stamp_name):
    """Install the lock files into .venv. An interrupted installation starts again."""
    stamp = os.path.join(VENV, stamp_name)
    wanted = fingerprint(files)
    try:
        with open(stamp) as file:
            if file.read() == wanted and os.path.exists(PYTHON):
                return
    except OSError:
        pass
    made = not os.path.exists(PYTHON)
    try:
        if made:
            print("Making the environment in .venv ...", flush=True)
            subprocess.check_call([sys.executable, "-m", "venv", "--clear", VENV])
        print("Installing %s ..." % " and ".join(files), flush=True)
        for name in files:
            subprocess.check_call(
                [
                    PYTHON,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--require-hashes",
                    "-r",
                    os.path.join(ROOT, name),
                ]
            )
    except (subprocess.CalledProcessError, OSError, KeyboardInterrupt) as error:
        if made:
            shutil.rmtree(VENV, ignore_errors=True)
        if isinstance(error, KeyboardInterrupt):
            fail("stopped; nothing is left behind. Run it again to go on.")
        fail(
            "the installation failed (the messages above say why); nothing is left behind. Is there a connection to "
            "the package index?"
        )
    with open(stamp, "w") as file:
        file.write(wanted)


# Runs in the environment whatever its path holds, as scripts that pip makes do where a path is long or has blanks.
SCRIPT = """#!/bin/sh
'''exec' "%(python)s" "$0" "$@"
' '''
import sys

sys.path[0] = %(root)r

if __name__ == "__main__":  # not in worker processes, which load it, too
    from portal.cli.main import main

    main()
"""


def write_command():
    """Write .venv/bin/airelays, each time: the folder may have been moved."""
    quoted = re.sub(r'([\\"$`])', r"\\\1", PYTHON)
    path = os.path.join(VENV, "bin", "airelays")
    text = SCRIPT % {"python": quoted, "root": ROOT}
    try:
        with open(path) as file:
            if file.read() == text and os.access(path, os.X_OK):
                return
    except (OSError, ValueError):
        pass
    try:
        with open(path + ".new", "w") as file:
            file.write(text)
        os.chmod(path + ".new", 0o755)
        os.replace(path + ".new", path)
    except OSError as error:
        fail("the command %s cannot be written: %s" % (path, error.strerror))


def main():
    what = sys.argv[1] if len(sys.argv) > 1 else "run"
    check_python()
    check_folder()
    check_venv_module()
    if what == "run":
        check_data_dir()
        check_port()
        install(["requirements.txt"], ".installed")
    else:
        install(["requirements.txt", "requirements-dev.txt"], ".installed-dev")
    write_command()


if __name__ == "__main__":
    main()
