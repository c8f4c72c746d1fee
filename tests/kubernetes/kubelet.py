"""As much of a kubelet as it takes to run the pods of deploy/kubernetes on one machine.

Each container has its own mounts, control group and rights, as the manifest says; those of a pod
share what it says. All pods share one network, so that there is one of each, and names lead to
it. Images are this checkout: see inside.py.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.kubernetes.inside import PATH, ROOT, Plan, rights
from tests.kubernetes.manifests import Object, Pod, injected

KUBERNETES: Final = {
    "metadata": {"name": "kubernetes"},
    "spec": {"ports": [{"name": "https", "port": 443}]},
}
"""The service that every container is told of."""
NODE: Final = "machine-1"
_PAUSE: Final = (
    "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN);\nwhile True: signal.pause()"
)
GROUPS: Final = next(
    path for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if path.is_dir()
)
_UNITS: Final = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_HEALTHY: Final = {"launcher": "launcher_healthy.py", "egress": "launcher_healthy.py"}
_POLL: Final = 0.05


@dataclass(slots=True, kw_only=True)
class Container:
    spec: Object
    plan: Plan
    log: Path
    group: Path
    space: int | None
    """A process of the namespace of pids that the pod shares."""
    outer: subprocess.Popen[bytes] = field(init=False)
    pid: int = 0

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    def start(self) -> None:
        self.group.mkdir(parents=True, exist_ok=True)
        apart = ("--mount", "--cgroup", "--propagation", "private")
        alone = ["unshare", "--pid", "--fork", "--kill-child", *apart]
        joined = ["nsenter", f"--pid=/proc/{self.space}/ns/pid", "--", "unshare", *apart]
        inside = (sys.executable, "-m", "tests.kubernetes.inside", json.dumps(asdict(self.plan)))
        script = 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"'
        with self.log.open("ab") as log:
            self.outer = subprocess.Popen(
                [
                    *("sh", "-c", script, "sh", str(self.group)),
                    *(joined if self.space else alone),
                    *("--", *inside),
                ],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self.pid = self._child()

    def _child(self) -> int:
        """What runs in the namespaces: pid and all it starts with stay, whatever it becomes.

        0 where it has ended well before anybody looked.
        """
        children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children")
        while self.outer.poll() is None:
            with suppress(OSError):
                if found := children.read_text().split():
                    return int(found[0])
            time.sleep(_POLL)
        assert self.outer.returncode == 0, f"{self.name} does not start: {self.said()}"
        return 0

    def said(self) -> str:
        return self.log.read_text()[-3000:]

    def end(self, seconds: float) -> int:
        """As a kubelet does it: SIGTERM, and what the container says at its end."""
        os.kill(self.pid, signal.SIGTERM)
        return self.outer.wait(seconds)

    def execute(self, argv: list[str], seconds: float) -> bool:
        done = subprocess.run(
            [
                *("nsenter", f"--target={self.pid}", "--mount", "--pid", "--wd=/", "--"),
                *(*rights(self.plan), *argv),
            ],
            env={"PATH": PATH, "PYTHONDONTWRITEBYTECODE": "1", **self.plan.env},
            capture_output=True,
            timeout=seconds,
        )
        return done.returncode == 0

    def well(self, probe: str) -> bool:
        """One try of `startupProbe` or another, as it is specified."""
        spec = self.spec[probe]
        seconds = float(spec["timeoutSeconds"])
        if "exec" in spec:
            with suppress(subprocess.TimeoutExpired):
                return self.execute(spec["exec"]["command"], seconds)
            return False
        if "httpGet" in spec:
            ports = {port["name"]: port["containerPort"] for port in self.spec["ports"]}
            url = f"http://127.0.0.1:{ports[spec['httpGet']['port']]}{spec['httpGet']['path']}"
            try:
                with urllib.request.urlopen(url, timeout=seconds) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False
        return _serves(spec["grpc"], seconds)

    def becomes(self, probe: str, wanted: bool = True, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while self.well(probe) is not wanted:
            assert time.monotonic() < until, f"{self.name}: {probe}: {self.said()}"
            assert self.outer.poll() is None, f"{self.name} ended: {self.said()}"
            time.sleep(_POLL)


def _serves(spec: Object, seconds: float) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{spec['port']}") as channel:
        request = health_pb2.HealthCheckRequest(service=spec.get("service", ""))
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(request, timeout=seconds)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise AssertionError(f"no such service: {spec}") from error
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Kubelet:
    """Of one machine. `secrets` by namespace and name, with keys and contents."""

    def __init__(
        self,
        work: Path,
        services: list[Object],
        secrets: Mapping[tuple[str, str], Mapping[str, bytes]],
        names: list[str],
    ) -> None:
        self._work = work
        self._services = services
        self._secrets = secrets
        self._hosts = f"127.0.0.1 localhost {' '.join(names)}\n"

    def run(self, pod: Pod) -> dict[str, Container]:
        """Start it, container by container; each that has to be there before the next one is."""
        folders = {each["name"]: self._volume(pod, each) for each in pod.spec["volumes"]}
        space = self._pause() if pod.spec.get("shareProcessNamespace") else None
        made: dict[str, Container] = {}
        first = [each["name"] for each in pod.spec.get("initContainers", [])]
        for spec in pod.containers:
            container = Container(
                spec=spec,
                plan=self._plan(pod, spec, folders),
                log=self._work / f"{pod.name}-{spec['name']}.log",
                group=groups_of(self._work) / pod.name / spec["name"],
                space=space,
            )
            container.start()
            if spec["name"] in first and spec.get("restartPolicy") != "Always":
                assert container.outer.wait(60) == 0, container.said()
                continue
            made[container.name] = container
            if container.name in first:
                container.becomes("startupProbe")
        for container in made.values():
            container.becomes("startupProbe")
        return made

    def _pause(self) -> int:
        process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--", sys.executable, "-c", _PAUSE]
        )
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text():
            assert process.poll() is None
            time.sleep(_POLL)
        return int(children.read_text())

    def _volume(self, pod: Pod, volume: Object) -> Path:
        folder = self._work / pod.name / str(volume["name"])
        group = pod.spec["securityContext"].get("fsGroup", 0)
        if "hostPath" in volume:
            folder = self._work / "host" / str(volume["hostPath"]["path"]).lstrip("/")
            folder.mkdir(parents=True, mode=0o755, exist_ok=True)
            return folder
        folder.mkdir(parents=True)
        if "secret" in volume:
            secret = volume["secret"]
            self._write(folder, pod, secret["secretName"], secret["defaultMode"], group)
            return folder
        if volume.get("emptyDir", {}).get("medium") == "Memory":
            size = bytes_of(volume["emptyDir"]["sizeLimit"])
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True
            )
        os.chown(folder, 0, group)
        folder.chmod(0o2777 if group else 0o777)
        return folder

    def _write(self, folder: Path, pod: Pod, name: str, mode: int, group: int) -> None:
        """By links, so that a kubelet can change all of them at once."""
        there = folder / "..2026"
        there.mkdir()
        (folder / "..data").symlink_to(there.name)
        for key, content in self._secrets[pod.namespace, name].items():
            (there / key).write_bytes(content)
            os.chown(there / key, 0, group)
            (there / key).chmod(mode)
            (folder / key).symlink_to(f"..data/{key}")

    def _plan(self, pod: Pod, container: Object, folders: Mapping[str, Path]) -> Plan:
        general, own = pod.spec["securityContext"], container["securityContext"]
        user = own.get("runAsUser", general.get("runAsUser"))
        service = container["image"].removeprefix("cove-").partition(":")[0]
        command = container.get("command") or ["python", "-m", _module(service)]
        healthy = _HEALTHY.get(container["name"], "healthy.py")
        fs_group = general.get("fsGroup")
        return Plan(
            argv=command,
            env=self._links(pod) | self._env(pod, container),
            mounts=[
                (str(folders[each["name"]]), each["mountPath"], each.get("readOnly", False))
                for each in container.get("volumeMounts", [])
            ],
            hosts=self._hosts,
            healthy=(ROOT / "deploy" / "image" / healthy).read_text(),
            user=user,
            group=general["runAsGroup"],
            groups=[fs_group] if fs_group else [],
            capabilities=own["capabilities"].get("add", []),
        )

    def _links(self, pod: Pod) -> dict[str, str]:
        assert pod.spec.get("enableServiceLinks", True)
        own = [each for each in self._services if each["metadata"]["namespace"] == pod.namespace]
        kubernetes = {
            "metadata": {"name": "kubernetes"},
            "spec": {"ports": [{"name": "https", "port": 443}]},
        }
        return injected([*own, kubernetes])

    def _env(self, pod: Pod, container: Object) -> dict[str, str]:
        def value(source: Mapping[str, Any]) -> str:
            if reference := source.get("secretKeyRef"):
                return self._secrets[pod.namespace, reference["name"]][reference["key"]].decode()
            if resource := source.get("resourceFieldRef"):
                kind, _, of = resource["resource"].partition(".")
                spec = pod.container(resource["containerName"])
                return str(bytes_of(spec["resources"][kind][of]))
            assert source == {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}} or (
                source == {"fieldRef": {"fieldPath": "spec.nodeName"}}
            )
            return NODE

        return {
            each["name"]: each["value"] if "value" in each else value(each["valueFrom"])
            for each in container.get("env", [])
        }


def groups_of(work: Path) -> Path:
    """The control group of all pods that a kubelet runs in this directory."""
    return GROUPS / f"cove-pods-{hashlib.sha256(bytes(work)).hexdigest()[:8]}"


def bytes_of(quantity: str) -> int:
    found = re.fullmatch(r"(\d+)(Ki|Mi|Gi)", quantity)
    assert found, quantity
    return int(found[1]) * _UNITS[found[2]]


def _module(service: str) -> str:
    """What the image starts by itself."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    (found,) = re.findall(rf'AS {service}\nCMD \["python", "-m", "([\w.]+)"\]', dockerfile)
    return str(found)
