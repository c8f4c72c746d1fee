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
unset AE_ENV AE_GEN
_cove_cd=$1 _cove_limit=$2 _cove_whole=$3 _cove_merge=$4 _cove_count=$5
shift 5
trap : TERM
if [ -n "$_cove_limit" ]; then
  (
    trap - TERM
    sleep "$_cove_limit" 2>/dev/null || sleep "$_cove_whole"
    : > /.cove/late
    kill -TERM -1
  ) < /dev/null > /dev/null 2>&1 &
  _cove_watch=$!
fi
while [ "$_cove_count" -gt 0 ]; do
  case $1 in
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
      export PATH="${PATH:-${1#PATH=}}" ;;
    *) export "$1" ;;
  esac
  shift
  _cove_count=$((_cove_count - 1))
done
mkdir -p "${HOME:-/}" 2>/dev/null
cd -- "$_cove_cd" 2>/dev/null || { printf cwd > /.cove/code; exit 0; }
[ "$_cove_merge" = 1 ] && exec 2>&1
(exec "$@")
_cove_code=$?
umask 077
if [ -e /.cove/late ]; then printf 't%s' "$_cove_code" > /.cove/code; else
  [ -n "$_cove_limit" ] && kill -KILL "$_cove_watch" 2>/dev/null
  printf %s "$_cove_code" > /.cove/code
fi
exit 0
"""
"""Its own variables have names that no command's have; what it does itself it does before the
command's are there. The command is a program always, not what the shell has of the same name."""


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
