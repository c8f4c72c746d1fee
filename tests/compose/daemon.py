"""A Docker daemon of the test's own, and the suite in it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.compose.machine import Cannot, say

SERVICES: Final = ("launcher", "registry", "git", "provider", "executor", "gateway")
_START: Final = 60.0
_STOP: Final = 60.0
_HEALTHY: Final = 120.0
_COMMAND: Final = 600.0
_PERIOD: Final = 0.2


class Suite:
    """What is in `docker-compose.yml`, brought up; or in the files that `options` name."""

    def __init__(
        self,
        context: Path,
        compose: str,
        env: dict[str, str],
        options: Sequence[str] = (),
        services: Sequence[str] = SERVICES,
    ) -> None:
        self._services = services
        self._context = context
        self._compose = (compose, "--project-name", "cove-test", *options)
        self._env = env

    def docker(self, *argv: str) -> str:
        """Run `docker`; returns what it says. Raises `RuntimeError` when it fails."""
        return self._run("docker", *argv)

    def compose(self, *argv: str) -> str:
        """The same of docker-compose."""
        return self._run(*self._compose, *argv)

    def inside(self, service: str, *argv: str, stdin: str = "") -> str:
        """What a program says in the container of a service. Raises `RuntimeError`."""
        return self._run("docker", "exec", "-i", self.container(service), *argv, stdin=stdin)

    def container(self, service: str) -> str:
        return self.compose("ps", "-q", service).strip()

    def healthy(self) -> None:
        """Wait until all say that they are. Raises `RuntimeError` when they do not in time."""
        give_up = time.monotonic() + _HEALTHY
        ids = [self.container(service) for service in self._services]
        while True:
            found = self.docker("inspect", "-f", "{{.State.Health.Status}}", *ids).split()
            if set(found) == {"healthy"}:
                return
            if time.monotonic() > give_up:
                raise RuntimeError(f"not healthy: {dict(zip(self._services, found, strict=True))}")
            time.sleep(_PERIOD)

    def restart(self, service: str) -> None:
        """Have Docker end and start its container; returns when all are well again."""
        self.docker("restart", "--time", "30", self.container(service))
        self.healthy()

    def kill(self, service: str) -> None:
        """Kill its container behind Docker's back; returns when it was started again.

        After a `docker kill`, which is somebody's will, Docker leaves a container alone.
        """
        container = self.container(service)
        pid, before = self._inspect(container, "{{.State.Pid}} {{.RestartCount}}").split()
        os.kill(int(pid), signal.SIGKILL)
        give_up = time.monotonic() + _HEALTHY
        again = "{{and .State.Running (gt .RestartCount " + before + ")}}"
        while self._inspect(container, again) != "true":
            if time.monotonic() > give_up:
                raise RuntimeError(f"{service} was not started again")
            time.sleep(_PERIOD)

    def _inspect(self, container: str, form: str) -> str:
        return self.docker("inspect", "-f", form, container).strip()

    def _run(self, *argv: str, stdin: str = "") -> str:
        done = subprocess.run(
            argv,
            cwd=self._context,
            env=self._env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_COMMAND,
        )
        if done.returncode:
            said = (done.stdout + done.stderr)[-4000:]
            raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{said}")
        return done.stdout


def image(variable: str) -> str:
    """Name of the image that the variable is to name."""
    return f"{variable.lower().replace('_', '-')}:test"


@contextlib.contextmanager
def daemon(folder: Path, *options: str) -> Iterator[str]:
    """Run dockerd with all it keeps below `folder`; yields the address of its socket.

    What an earlier one kept there is there again. Raises `Cannot` when it does not start.
    """
    folder.mkdir(exist_ok=True)
    address, pidfile, log = f"unix://{folder}/socket", folder / "pid", folder / "log"
    group = f"cove-test-{os.getpid()}"
    argv: list[str | Path] = [
        "dockerd",
        "--data-root",
        folder / "data",
        "--exec-root",
        folder / "exec",
    ]
    argv += ["--host", address]
    argv += ["--pidfile", pidfile, "--cgroup-parent", f"/{group}", *options]
    say("starting a Docker daemon")
    with log.open("wb") as said:
        process = subprocess.Popen(argv, stdout=said, stderr=said, start_new_session=True)
    try:
        _wait_for(process, folder / "socket", log)
        yield address
    finally:
        _stop(process, pidfile)
        _forget_groups(group)


@contextlib.contextmanager
def up(suite: Suite, bases: Mapping[str, Path]) -> Iterator[None]:
    """Build the images, start all containers, and remove them at the end, volumes and all."""
    say("importing the bases, building an image for each service without network")
    for name, tar in bases.items():
        suite.docker("import", str(tar), image(name))
    with running(suite):
        yield


@contextlib.contextmanager
def running(suite: Suite) -> Iterator[None]:
    """The same, of bases that are there."""
    suite.compose("build")
    try:
        say("docker-compose up")
        suite.compose("up", "-d")
        suite.healthy()
        yield
    except BaseException:
        say(suite.compose("logs", "--tail", "40"))
        raise
    finally:
        suite.compose("down", "--volumes", "--timeout", "30")


def _wait_for(process: "subprocess.Popen[bytes]", socket: Path, log: Path) -> None:
    give_up = time.monotonic() + _START
    argv = ["docker", "--host", f"unix://{socket}", "version"]
    while subprocess.run(argv, capture_output=True).returncode:
        if process.poll() is not None or time.monotonic() > give_up:
            raise Cannot(f"dockerd does not start here:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(_PERIOD)


def _stop(process: "subprocess.Popen[bytes]", pidfile: Path) -> None:
    """End the daemon that the pidfile names, which is the one we started."""
    with contextlib.suppress(OSError, ValueError):
        if int(pidfile.read_text()) == process.pid:
            process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _forget_groups(name: str) -> None:
    """Remove the control groups that the daemon left, all empty now."""
    top = Path("/sys/fs/cgroup")
    for group in [*top.glob(name), *top.glob(f"*/{name}")]:
        for each, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(each)  # noqa: PTH106 - no pathlib for so little.
