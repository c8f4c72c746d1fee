"""Cove in a minute: start the suite, make a workspace, run, look, commit, push.

Usage: demo.py [REPOSITORY], a path or URL that can be pushed to; this checkout when none
is named. The suite runs on a temporary state directory and is gone at the end;
what stays is one branch in the repository. With COVE_ADDRESS (and COVE_TOKEN) it is
the suite there that is used, which has to know the repository by that path or URL.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
COVE: Final = str(Path(sys.executable).parent / "cove")

WORK: Final = """\
echo "in $(pwd), on $(git symbolic-ref --short HEAD), as $(id -un)"
for step in 1 2 3; do echo "working, step $step of 3"; sleep 0.4; done
echo "Written inside a Cove workspace." > HELLO-FROM-COVE.md
"""


def main() -> int:
    repository = sys.argv[1] if len(sys.argv) > 1 else str(ROOT)
    if Path(repository).exists():
        repository = str(Path(repository).resolve())
    name = f"demo-{int(time.time())}"
    given = bool(os.environ.get("COVE_ADDRESS"))
    with contextlib.nullcontext(dict(os.environ)) if given else suite() as env:
        run(env, "create", repository, "--id", name)
        run(env, "exec", name, "--", "sh", "-c", WORK)
        run(env, "status", name)
        run(env, "diff", name)
        run(env, "commit", name, "-m", "Say hello from Cove")
        run(env, "push", name)
        show_log(env, repository, name)
        run(env, "rm", name)
    if not given:
        state = "/var/lib/cove" if os.getuid() == 0 else "~/.local/state/cove"
        print(GO_ON.format(repository=shlex.quote(repository), state=state))
    return 0


@contextlib.contextmanager
def suite() -> Iterator[dict[str, str]]:
    """`cove up` on a temporary state directory; the environment that `cove` finds it by."""
    state = tempfile.mkdtemp(prefix="cove-demo-")
    env = {**os.environ, "COVE_STATE": f"{state}/state", "COVE_RUNTIME": f"{state}/run"}
    env.pop("COVE_TOKEN", None)
    say("cove up")
    with Path(state, "up.log").open("w") as log:
        up = subprocess.Popen(
            [COVE, "up", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert up.stdout is not None
        line = up.stdout.readline()
        if not line:
            up.wait()
            sys.exit(f"cove up did not start:\n{Path(state, 'up.log').read_text()}")
        print(line, end="", flush=True)
        yield env
    finally:
        up.terminate()
        up.wait()
        shutil.rmtree(state)


def run(env: dict[str, str], *command: str) -> None:
    say(shlex.join(["cove", *command]))
    done = subprocess.run([COVE, *command], env=env)
    if done.returncode:
        sys.exit(f"that ended with status {done.returncode}")


def show_log(env: dict[str, str], repository: str, name: str) -> None:
    if not Path(repository).exists():
        run(env, "log", name)
        return
    command = ["git", "log", "-1", "--stat", f"cove/{name}"]
    say(shlex.join(command))
    subprocess.run(
        ["git", "-c", f"safe.directory={repository}", "--no-pager", *command[1:]],
        cwd=repository,
        check=True,
    )


def say(command: str) -> None:
    print(f"\n$ {command}", flush=True)


GO_ON: Final = """
That was Cove. To go on by hand:

  . .venv/bin/activate
  cove up 2> ~/cove-up.log &    # wait for its line; its state is in {state}
  cove create {repository} --id mine
  cove exec mine -- ls -la
  cove status mine; cove rm mine

  TOKEN=$(cat {state}/registry/token)
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" 127.0.0.1:7420 list
  curl -H "authorization: Bearer $TOKEN" 127.0.0.1:7421/workspaces
"""


if __name__ == "__main__":
    sys.exit(main())
