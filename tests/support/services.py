"""PostgreSQL, MariaDB and Redis for the suites that concern them, and a browser: `python -m tests.support.services
start|stop|database|mariadb|redis|browser`.

They are installed from Debian's packages, listen on 127.0.0.1 on ports of their own, and keep their data in
`.services/`. Nothing of a database that may already run on this machine is touched.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

# The folders of the data are elsewhere for root, since the databases' users may not be able to enter the repository.
ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".services"
POSTGRES_PORT, MARIADB_PORT, REDIS_PORT = 54329, 33069, 63799
MARIADB_URL = f"mariadb://root@127.0.0.1:{MARIADB_PORT}/mysql"
DATABASE_URL = f"postgresql://airelays@127.0.0.1:{POSTGRES_PORT}/postgres"
REDIS_URL = f"redis://127.0.0.1:{REDIS_PORT}/0"


def fail(message: str) -> None:
    sys.exit(f"services: {message}")


def postgres_program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return str(found[-1]) if found else shutil.which(name)


def mariadb_program() -> str | None:
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def install(wanted: dict[str, str | None]) -> None:
    """Debian packages of which nothing is there yet."""
    missing = [package for package, there in wanted.items() if not there]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        fail(f"install {' and '.join(missing)} first: apt-get install {' '.join(missing)}")
    print(f"installing {', '.join(missing)}…", flush=True)
    # No cluster and no service of the packages' own is started.
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-q"],
            ["apt-get", "install", "-yq", "--no-install-recommends", *missing],
        ):
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode and command[1] == "install":
                fail(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    finally:
        if made:
            policy.unlink()


def postgres_user() -> list[str]:
    """PostgreSQL refuses to run as root; then it runs as the packages' own user."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


def start_postgres() -> None:
    if answers(POSTGRES_PORT):
        return
    data = Path("/tmp/airelays-services-postgres" if os.geteuid() == 0 else FOLDER / "postgres")
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, mode=0o700)
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(data, account.pw_uid, account.pw_gid)
    run = [
        *postgres_user(),
        str(postgres_program("initdb")),
        "-D",
        str(data),
        "-U",
        "airelays",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    ]
    done = subprocess.run(run, cwd="/", capture_output=True, text=True)
    if done.returncode:
        fail(f"initdb failed:\n{done.stderr[-2000:]}")
    options = (
        f"-p {POSTGRES_PORT} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200 -c "
        "fsync=off -c full_page_writes=off -c synchronous_commit=off"
    )
    control = [
        *postgres_user(),
        str(postgres_program("pg_ctl")),
        "-D",
        str(data),
        "-l",
        str(data / "log"),
        "-o",
        options,
        "-w",
        "start",
    ]
    if subprocess.run(control, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        fail(f"PostgreSQL did not start; see {data / 'log'}")
    (FOLDER / "postgres.data").write_text(str(data))


def start_mariadb() -> None:
    """Without what keeps data over a crash of the machine, and with few files for the many databases of a run."""
    if answers(MARIADB_PORT):
        return
    data = Path("/tmp/airelays-services-mariadb" if os.geteuid() == 0 else FOLDER / "mariadb")
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, mode=0o700)
    user = "mysql" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    shutil.chown(data, user)
    common = ["--no-defaults", f"--user={user}", f"--datadir={data}"]
    made = subprocess.run(
        ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
        cwd="/",
        capture_output=True,
        text=True,
    )
    if made.returncode:
        fail(f"mariadb-install-db failed:\n{made.stderr[-2000:]}")
    options = [
        "--bind-address=127.0.0.1",
        f"--port={MARIADB_PORT}",
        f"--socket={data / 'socket'}",
        f"--pid-file={data / 'pid'}",
        f"--log-error={data / 'log'}",
        "--skip-name-resolve",
        "--max-connections=200",
        "--skip-innodb-doublewrite",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-flush-method=nosync",
        "--skip-innodb-file-per-table",
    ]
    subprocess.Popen(
        [str(mariadb_program()), *common, *options],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while not answers(MARIADB_PORT):
        if time.monotonic() > until:
            fail(f"MariaDB did not start; see {data / 'log'}")
        time.sleep(0.05)
    (FOLDER / "mariadb.data").write_text(str(data))


def start_redis() -> None:
    if answers(REDIS_PORT):
        return
    command = [
        "redis-server",
        "--port",
        str(REDIS_PORT),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "yes",
        "--dir",
        str(FOLDER),
    ]
    subprocess.run(
        [*command, "--pidfile", str(FOLDER / "redis.pid"), "--logfile", str(FOLDER / "redis.log")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 10
    while not answers(REDIS_PORT):
        if time.monotonic() > until:
            fail(f"Redis did not start; see {FOLDER / 'redis.log'}")
        time.sleep(0.05)


def start() -> None:
    FOLDER.mkdir(exist_ok=True)
    install(
        {
            "postgresql": postgres_program("initdb"),
            "mariadb-server": mariadb_program(),
            "redis-server": shutil.which("redis-server"),
        }
    )
    start_postgres()
    start_mariadb()
    start_redis()
    print(f"PostgreSQL: {DATABASE_URL}\nMariaDB:    {MARIADB_URL}\nRedis:      {REDIS_URL}")


def browser() -> None:
    """A chromium for the tests of pages; they are skipped where there is none.

    The one without windows needs half of the time. Not all distributions have it.
    """
    there = shutil.which("chromium-headless-shell")
    if not there and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-q"], capture_output=True)
        known = subprocess.run(["apt-cache", "show", "chromium-headless-shell"], capture_output=True).returncode == 0
        if known:
            install({"chromium-headless-shell": None})
            return
    install({"chromium": there or shutil.which("chromium") or shutil.which("google-chrome")})


def stop() -> None:
    """Ends what `start` started, and removes its data."""
    note = FOLDER / "postgres.data"
    if note.exists():
        data = Path(note.read_text())
        subprocess.run(
            [*postgres_user(), str(postgres_program("pg_ctl")), "-D", str(data), "-m", "immediate", "stop"],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        shutil.rmtree(data, ignore_errors=True)
    _end(FOLDER / "redis.pid")
    note = FOLDER / "mariadb.data"
    if note.exists():
        data = Path(note.read_text())
        _end(data / "pid", 9)
        shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(FOLDER, ignore_errors=True)


def _end(pid: Path, signal: int = 15) -> None:
    try:
        os.kill(int(pid.read_text()), signal)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        pass


if __name__ == "__main__":
    action = sys.argv[1] if len(sys.argv) > 1 else "start"
    urls = {"database": DATABASE_URL, "mariadb": MARIADB_URL, "redis": REDIS_URL}
    if action in urls:
        print(urls[action])
    else:
        {"start": start, "stop": stop, "browser": browser}[action]()
