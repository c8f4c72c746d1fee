"""What is in deploy/ for supervisors: that it is well formed, and as narrow as it says.

No systemd is the init of the machines of the tests, so no unit is started here.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parent.parent.parent
UNITS: Final = ROOT / "deploy" / "systemd"
PROCESSES: Final = {
    *("launcher", "egress", "registry", "git", "provider", "executor", "gateway"),
}
MAKES_NAMESPACES: Final = {"launcher", "git"}
ANOTHERS: Final = {"dagger-engine"}
"""Is privileged, and documented to be."""


def settings(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / f"cove-{name}.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_each_process_has_a_unit_of_the_target() -> None:
    assert {path.name for path in UNITS.glob("cove-*.service")} == {
        f"cove-{name}.service" for name in PROCESSES
    }
    for name in PROCESSES:
        unit = settings(name)
        assert unit["PartOf"] == unit["WantedBy"] == ["cove.target"]
        (module,) = re.findall(r" -m (\S+)", unit["ExecStart"][0])
        assert (ROOT / module.replace(".", "/") / "__main__.py").exists()


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_a_unit_has_no_more_rights_than_its_container(name: str) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][name]
    unit = settings(name)
    given = {f"CAP_{each}" for each in compose.get("cap_add", [])}
    assert {*unit["CapabilityBoundingSet"][0].split()} <= given
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["LimitCORE"] == ["0"]
    if name not in MAKES_NAMESPACES:
        assert unit["RestrictNamespaces"] == ["yes"]
        assert unit["SystemCallFilter"] == ["@system-service"]


def test_what_every_call_waits_for_has_the_processor_first() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    first = {name for name in PROCESSES if "CPUWeight" in settings(name)}
    assert first == {name for name in compose if "cpu_shares" in compose[name]}
    assert first == {"gateway", "registry"}


def test_systemd_finds_the_units_right(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    for path in [*UNITS.glob("*.service"), *UNITS.glob("*.target")]:
        text = path.read_text().replace("/opt/cove/bin/python", sys.executable)
        (tmp_path / path.name).write_text(text.replace("/opt/cove/docs", str(ROOT / "docs")))
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(map(str, tmp_path.iterdir()))],
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_containers_are_narrow() -> None:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for name, service in compose["services"].items():
        if name in ANOTHERS:
            continue
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert not service.get("privileged"), name
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), name
