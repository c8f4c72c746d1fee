"""What remotes answer: their refs, how far they are, and why they refuse."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from servicekit.errors import InvalidArgument
from services.git.errors import (
    AccessDenied,
    RemoteForbidden,
    RemoteUnavailable,
    RepositoryNotFound,
    RepositoryTooLarge,
    RevisionNotFound,
    ShallowRefused,
    is_full_here,
    is_out_of_memory,
    no_room,
)
from services.git.remote import Remote

_PROGRESS: Final = re.compile(r"(?:remote: )?([A-Z][a-z]+ [a-z]+): +\d+% \((\d{1,18})/(\d{1,18})\)")
_SHA1_LENGTH: Final = 40
_OUR_OWN: Final = "askpass"
"""In what git says of a password that nobody is asked for, as we have it do."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The refs of a remote. `head_branch` is empty when HEAD is detached or absent, or its branch
    has a name that is no text."""

    head: str
    head_branch: str
    refs: Mapping[str, str]


def report(line: str, progress: Progress) -> None:
    """Pass on a line of git's progress."""
    if found := _PROGRESS.search(line):
        progress(found[1].lower(), int(found[2]), int(found[3]))


def listed(output: bytes) -> Listing:
    """Read `git ls-remote --symref`. Raises `RemoteForbidden` for SHA-256."""
    head_branch, refs = "", {}
    for line in output.decode("utf-8", "surrogateescape").split("\n"):
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            if name == "HEAD":
                head_branch = _branch(value.removeprefix("ref: "))
        elif name:
            refs[name] = value
    return _listing(head_branch, refs)


def advertised(output: bytes) -> Listing:
    """Read `git upload-pack --advertise-refs`. Raises as `listed`, and ValueError."""
    head_branch, refs = "", {}
    for number, line in enumerate(_packets(output)):
        text, _, capabilities = line.decode("utf-8", "surrogateescape").partition("\0")
        value, _, name = text.rstrip("\n").partition(" ")
        if number == 0:
            for capability in capabilities.split():
                if capability.startswith("symref=HEAD:"):
                    head_branch = _branch(capability.removeprefix("symref=HEAD:"))
                if capability == "object-format=sha256":
                    raise _other_names()
        refs[name] = value
    return _listing(head_branch, refs)


def _branch(ref: str) -> str:
    """Empty where its name is no text, which nobody could say again."""
    try:
        ref.encode()
    except UnicodeEncodeError:
        return ""
    return ref.removeprefix("refs/heads/")


def _listing(head_branch: str, found: Mapping[str, str]) -> Listing:
    if any(len(value) > _SHA1_LENGTH for value in found.values()):
        raise _other_names()
    kept = {
        name: value
        for name, value in found.items()
        if name.startswith(("refs/heads/", "refs/tags/"))
    }
    return Listing(head=found.get("HEAD", ""), head_branch=head_branch, refs=kept)


def _packets(output: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(output):
        length = int(output[position : position + 4], 16)
        if length == 0:
            return
        if length <= 4:
            raise ValueError("not a packet")
        yield output[position + 4 : position + length]
        position += length


def _other_names() -> RemoteForbidden:
    return RemoteForbidden(
        "repository",
        "the repository names its objects by SHA-256, which is not supported",
        rule="object_format",
        remedy="Use a repository with SHA-1 object names, which is what git makes by default.",
    )


def failure(remote: Remote, errors: str) -> Exception:
    """What a failed conversation means to the caller."""
    text = errors.lower()
    cause = _cause(errors)

    def has(*words: str) -> bool:
        return any(word in text for word in words)

    if has("invalid filter-spec"):
        return InvalidArgument("filter", "git takes no such filter: the number is too large")
    if is_out_of_memory(errors):
        return RepositoryTooLarge(
            "git needs more memory for the repository than it may have", repository=remote.url
        )
    if is_full_here(errors):
        return no_room(errors)
    if has("returned error: 30", "redirect"):
        return RemoteForbidden(
            "repository",
            "the remote redirects, which is not followed: give the address it redirects to",
            rule="redirects",
            repository=remote.url,
            remedy="Use the address that it redirects to.",
        )
    if has(
        "certificate verification failed",
        "ssl certificate problem",
        "certificate subject name",
        "error setting certificate",
    ):
        return RemoteForbidden(
            "repository",
            "the remote's TLS certificate is not one to trust for this host now",
            rule="certificate",
            repository=remote.url,
            cause=cause,
            remedy="Check the certificate's host name, dates and issuer; have the operator list"
            " an authority of your own in COVE_GIT__CA_FILE.",
        )
    if has("host key verification failed"):
        return RemoteForbidden(
            "repository",
            "the remote's ssh host key is not among the known hosts that were given",
            rule="host_key",
            repository=remote.url,
            cause=cause,
            remedy="Send the host's key as known_hosts, as ssh-keyscan prints it, after checking"
            " it with whoever runs the host.",
        )
    if has("not support shallow", "not support --shallow"):
        return ShallowRefused(
            "the remote cannot cut its history", capability="depth", repository=remote.url
        )
    if has("mismatched algorithms", "repository's hash algorithm"):
        other = _other_names()
        other.metadata["repository"] = remote.url
        return other
    if has("couldn't find remote ref", "not our ref", "unadvertised object"):
        return RevisionNotFound("the repository has no such revision", repository=remote.url)
    if has(
        "authentication failed",
        "could not read username",
        "could not read password",
        "permission denied",
        "access denied",
        "returned error: 401",
        "returned error: 403",
        "no anonymous",
        "dubious ownership",
    ):
        return AccessDenied("the repository refused", repository=remote.url, cause=cause)
    if has("does not appear to be a git repository", "not found", "returned error: 404"):
        return RepositoryNotFound("no repository is there", repository=remote.url)
    return RemoteUnavailable("the remote broke off", repository=remote.url, cause=cause)


def _cause(errors: str) -> str:
    lines = [line for line in re.split(r"[\r\n]+", errors) if line.strip()]
    telling = [
        line
        for line in lines
        if line.startswith(("fatal:", "error:", "ssh:")) and _OUR_OWN not in line
    ]
    text = (telling or lines or [""])[0]
    return "".join(char for char in text if char.isprintable())[:300]
