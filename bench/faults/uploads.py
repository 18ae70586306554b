"""Uploads two gigabytes in files of 31 MiB, eight at once, with deletions, while the portal is killed twice.

In the end disk and records must agree.

python -m bench.faults.uploads            # 2 GiB, about two minutes
python -m bench.faults.uploads --mib 512
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
MIB = 1 << 20
SIZE = 31 * MIB
AT_ONCE = 8


@dataclass
class UploadTally:
    """The answers that clients received."""

    sent: int = 0  # bytes
    stored: int = 0  # uploads answered with 200
    refused: int = 0  # with 413
    broken: int = 0  # by a kill
    stored_files: dict[str, int] = field(default_factory=dict)  # sizes by id, without those deleted since
    peak: int = 0  # bytes stored at once
    progress: asyncio.Event = field(default_factory=asyncio.Event)  # set after each upload

    async def reached(self, sent: float) -> None:
        """Wait until this number of bytes has been sent."""
        while self.sent < sent:
            self.progress.clear()
            await self.progress.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(port: int, env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "serve", "--port", str(port)],
            cwd=ROOT,
            env=env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1, trust_env=False).status_code == 200:
                return process
        time.sleep(0.1)
    raise SystemExit(f"the portal does not start; see {log}")


async def client(number: int, base: str, token: str, tally: UploadTally, goal: int) -> None:
    """Upload files, and delete some, until enough bytes have been sent."""
    source, blob = random.Random(number), os.urandom(MIB)  # noqa: S311  # not for secrets
    async with httpx.AsyncClient(
        base_url=base, headers={"authorization": f"Bearer {token}"}, timeout=60, trust_env=False
    ) as http:
        while tally.sent < goal:
            content = bytes([number]) + blob * 31
            try:
                answer = await http.post(
                    "/v1/files", files={"file": (f"{number}.bin", content[:SIZE])}, data={"purpose": "user_data"}
                )
            except httpx.HTTPError:
                tally.broken += 1
                await asyncio.sleep(0.3)
                continue
            tally.sent += SIZE
            tally.progress.set()
            if answer.status_code == 200:
                tally.stored += 1
                tally.stored_files[answer.json()["id"]] = SIZE
                tally.peak = max(tally.peak, sum(tally.stored_files.values()))
            elif answer.status_code == 413:
                tally.refused += 1
            else:
                raise SystemExit(f"{answer.status_code}: {answer.text[:200]}")
            if tally.stored_files and (answer.status_code == 413 or source.random() < 0.6):
                victim = source.choice(list(tally.stored_files))
                with contextlib.suppress(httpx.HTTPError):
                    gone = await http.delete(f"/v1/files/{victim}")
                    if gone.status_code in {200, 404}:  # 404: deleted before, and the answer was lost in a kill
                        tally.stored_files.pop(victim, None)


async def run(
    port: int, env: dict[str, str], log: Path, token: str, mib: int
) -> tuple[UploadTally, subprocess.Popen[bytes]]:
    tally, goal = UploadTally(), mib * MIB
    process = start(port, env, log)
    work = asyncio.gather(
        *(client(number, f"http://127.0.0.1:{port}", token, tally, goal) for number in range(AT_ONCE))
    )
    for share in (1 / 3, 2 / 3):
        await tally.reached(goal * share)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed after {tally.sent / MIB:.0f} MiB", flush=True)
        process = await asyncio.to_thread(start, port, env, log)
    await asyncio.wait_for(work, 900)
    return tally, process


def portal(env: dict[str, str], upstream: str = "http://127.0.0.1:9/v1") -> str:
    """Prepare a new portal; returns a token."""
    made = subprocess.run(
        [sys.executable, "-m", "tests.support.load.portal_setup", upstream],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return made.stdout.strip().splitlines()[-1]


def manage(env: dict[str, str], *arguments: str) -> Any:
    found = subprocess.run(
        [sys.executable, "manage.py", *arguments, "--json"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return found.returncode, json.loads(found.stdout)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=2048)
    mib: int = parser.parse_args().mib
    with tempfile.TemporaryDirectory(prefix="airelays-uploads-") as folder:
        env = {**os.environ, "AIRELAYS_DATA_DIR": folder, "AIRELAYS_DATABASE_URL": "", "AIRELAYS_JOBS": "false"}
        token, log, port = portal(env), Path(folder) / "log", free_port()
        began = time.monotonic()
        tally, process = asyncio.run(run(port, env, log, token, mib))
        seconds = time.monotonic() - began
        until = time.monotonic() + 60
        while (outcome := manage(env, "uploads", "verify", "--contents"))[0] and time.monotonic() < until:
            time.sleep(1)  # until the sweeper has removed the remains of the second kill
        files = httpx.get(
            f"http://127.0.0.1:{port}/v1/files",
            headers={"authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
        ).json()["data"]
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        on_disk = sum(path.stat().st_size for path in (Path(folder) / "uploads").glob("*/*"))
        code, found = outcome
    lost = set(tally.stored_files) - {file["id"] for file in files}
    print(
        f"{tally.sent / MIB:.0f} MiB sent in {seconds:.0f} s: {tally.stored} stored, {tally.refused} refused with "
        f"413, {tally.broken} broken by a kill"
    )
    print(
        f"most at once {tally.peak / MIB:.0f} MiB of 256; on the disk in the end {on_disk / MIB:.0f} MiB in "
        f"{found['files']} files, recorded {found['bytes'] / MIB:.0f} MiB"
    )
    print(f"differences: {found['differences'] or 'none'}; answered with 200 and lost: {len(lost)}")
    return 1 if code or lost or on_disk != found["bytes"] or tally.peak > 256 * MIB else 0


if __name__ == "__main__":
    sys.exit(main())
