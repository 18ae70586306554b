"""The samples of deployments: what they set exists, what they name is there, and the programs that read them agree."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from portal.config import Config
from tests.support.server import ROOT

SAMPLES = ROOT / "docs" / "deployment"
COMPOSED = sorted(SAMPLES.glob("compose*.yaml"))
SETTINGS = {f"AIRELAYS_{name.upper()}" for name in Config.model_fields}


def test_only_settings_that_exist_are_set() -> None:
    for path in (ROOT / "Dockerfile", ROOT / "docs" / "deploy.md", *SAMPLES.iterdir()):
        unknown = set(re.findall(r"AIRELAYS_[A-Z_]+", path.read_text())) - SETTINGS
        assert not unknown, f"{path.name}: {unknown}"


@pytest.mark.parametrize("path", COMPOSED, ids=lambda path: path.name)
def test_the_containers_are_locked_up_and_wait_for_what_they_need(path: Path) -> None:
    said: dict[str, Any] = yaml.safe_load(path.read_text())
    services = said["services"]
    for name in {"portal", "migrate"} & set(services):
        one = services[name]
        assert one["read_only"] and one["cap_drop"] == ["ALL"] and "no-new-privileges:true" in one["security_opt"]
        assert (path.parent / one["build"] / "Dockerfile").is_file()
        for other, condition in one.get("depends_on", {}).items():
            healthy = condition["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in services[other], f"{name} waits for {other}"
    assert float(services["portal"]["stop_grace_period"].removesuffix("s")) >= 20 + 30
    volumes = {volume.split(":")[0] for one in services.values() for volume in one.get("volumes", ())}
    assert {name for name in volumes if not name.startswith(".")} == set(said["volumes"])
    used = {network for one in services.values() for network in one.get("networks", ())}
    assert used == set(said.get("networks", ()))
    for name, one in services.items():  # a database is not offered to the machine's network
        ports = one.get("ports", ())
        assert not ports or name == "caddy" or all(port.startswith("127.0.0.1:") for port in ports)


def test_the_pods_run_without_rights_and_drain() -> None:
    kinds = {one["kind"]: one for one in yaml.safe_load_all((SAMPLES / "kubernetes.yaml").read_text())}
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["fsGroup"]
    user = re.search(r"^USER (\d+):", (ROOT / "Dockerfile").read_text(), re.M)
    assert user and int(user[1]) == pod["securityContext"]["runAsUser"]
    delay = next(one["value"] for one in pod["containers"][0]["env"] if one["name"].endswith("SHUTDOWN_DELAY_SECONDS"))
    assert pod["terminationGracePeriodSeconds"] >= int(delay) + 20 + 30
    assert pod["enableServiceLinks"] is False and pod["automountServiceAccountToken"] is False
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "emptyDir" not in volume}
    assert claims == {kinds["PersistentVolumeClaim"]["metadata"]["name"]}
    for one in (*pod["initContainers"], *pod["containers"]):
        assert (
            one["securityContext"]["readOnlyRootFilesystem"] and not one["securityContext"]["allowPrivilegeEscalation"]
        )
        assert {mount["name"] for mount in one["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_image_is_made_of_what_is_sent_to_its_builder() -> None:
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    assert all((ROOT / name).exists() for name in sent)
    built = (ROOT / "pyproject.toml").read_text()
    only = re.search(r"^only-include = \[(.*)\]", built, re.M)
    assert only and set(re.findall(r'"([^"]+)"', only[1])) <= sent
    assert {"pyproject.toml", "README.md", "LICENSE", "requirements.txt", "docs/deployment/install.sh"} <= sent
    assert not {".git", ".env", "tests", "docs"} & sent


def test_the_unit_waits_for_the_last_records() -> None:
    unit = dict(
        line.split("=", 1) for line in (SAMPLES / "airelays.service").read_text().splitlines() if line[:1].isupper()
    )
    assert int(unit["TimeoutStopSec"]) >= 20 + 30 and unit["SuccessExitStatus"] == "143"
    assert unit["DynamicUser"] == unit["ProtectHome"] == "yes" and unit["ExecStart"].endswith(" serve")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_nginx_takes_its_sample(tmp_path: Path) -> None:
    for name, arguments in (("key.pem", ["genrsa"]), ("cert.pem", ["req", "-x509", "-new", "-subj", "/CN=a", "-key"])):
        more = [str(tmp_path / "key.pem")] if name == "cert.pem" else []
        subprocess.run(["openssl", *arguments, *more, "-out", str(tmp_path / name)], check=True, capture_output=True)
    site = (SAMPLES / "nginx.conf").read_text()
    site = site.replace("/etc/ssl/ai.example.org.pem", str(tmp_path / "cert.pem"))
    site = site.replace("/etc/ssl/ai.example.org.key", str(tmp_path / "key.pem"))
    folders = " ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi"))
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error; events {{}}\nhttp {{ access_log off; {folders} "
        f"scgi_temp_path {tmp_path}/scgi;\n{site}\n}}"
    )
    done = subprocess.run(
        ["nginx", "-t", "-q", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_script_that_installs_is_one_of_the_shell() -> None:
    done = subprocess.run(["sh", "-n", str(SAMPLES / "install.sh")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
