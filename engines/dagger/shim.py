"""The shell script that every command runs under, in the container.

An engine takes back what a command did that ended by a signal, and tells no exit code of such a
one. So the script is what ends, always with 0, and the code of the command is in a file.
"""

from collections.abc import Mapping, Sequence
from typing import Final

FOLDER: Final = "/.cove"
CODE: Final = f"{FOLDER}/code"
"""The exit code, or `cwd` when the directory could not be entered; after a timeout with a `t`."""
OUT: Final = f"{FOLDER}/out"
ERR: Final = f"{FOLDER}/err"
GRACE: Final = 5
"""Seconds between SIGTERM and the end of the request, which is SIGKILL."""

_SCRIPT: Final = r"""
umask 022
rm -f /.cove/code /.cove/late
cd=$1 limit=$2 whole=$3 merge=$4 count=$5
shift 5
while [ "$count" -gt 0 ]; do
  case $1 in
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
      export PATH="${PATH:-${1#PATH=}}" ;;
    *) export "$1" ;;
  esac
  shift
  count=$((count - 1))
done
unset AE_ENV AE_GEN
mkdir -p "${HOME:-/}" 2>/dev/null
cd -- "$cd" 2>/dev/null || { printf cwd > /.cove/code; exit 0; }
[ "$merge" = 1 ] && exec 2>&1
trap : TERM
if [ -n "$limit" ]; then
  (
    trap - TERM
    sleep "$limit" 2>/dev/null || sleep "$whole"
    : > /.cove/late
    kill -TERM -1
  ) < /dev/null > /dev/null 2>&1 &
  watch=$!
fi
"$@"
code=$?
umask 077
if [ -e /.cove/late ]; then printf 't%s' "$code" > /.cove/code; else
  [ -n "$limit" ] && kill -KILL "$watch" 2>/dev/null
  printf %s "$code" > /.cove/code
fi
exit 0
"""


def argv(
    command: Sequence[str], env: Mapping[str, str], cwd: str, *, timeout: float, merge: bool
) -> list[str]:
    """What the engine is to run. `timeout` in seconds, 0 is none."""
    limit = f"{timeout:.3f}".rstrip("0").rstrip(".") if timeout else ""
    whole = str(-(-int(timeout * 1000) // 1000)) if timeout else ""
    variables = [f"{name}={value}" for name, value in env.items()]
    first = [cwd, limit, whole, str(int(merge)), str(len(variables))]
    return ["/bin/sh", "-c", _SCRIPT, "cove", *first, *variables, *command]


def code(text: str) -> tuple[int, bool]:
    """Exit code, and whether it was too late. Raises ValueError."""
    late = text.startswith("t")
    return int(text.removeprefix("t")), late
