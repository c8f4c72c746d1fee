"""The system call filter of every sandbox, as BPF for the kernel.

What Docker's default profile keeps from a process without capabilities, and on top of it all that
lets one process of a user reach into another: pid 1 has the same uid as the commands.
"""

import errno
import platform
import struct
from typing import Final

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCH = 0, 4
"""Offsets in struct seccomp_data; argument n begins at 16 + 8n, its low half first."""

_LAST_KNOWN: Final = 469
"""Newer calls do not exist for a sandbox, so that libraries fall back to what they had before."""

_NAMESPACES: Final = 0x7E020000
"""Flags of clone that make namespaces."""
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_TERMINAL_INPUT: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_AF_VSOCK: Final = 40

_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN: Final = {"x86_64": 0, "aarch64": 1}

_DENIED: Final[dict[str, tuple[int | None, int | None]]] = {
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "get_kernel_syms": (177, None),
    "get_mempolicy": (239, 236),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "query_module": (178, None),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sysfs": (139, None),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
    "vserver": (236, None),
}
"""Name: number on x86_64 and on aarch64."""

_FILTERED: Final = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "ioctl": (16, 29),
    "personality": (135, 92),
    "prlimit64": (302, 261),
    "socket": (41, 198),
}


def program(machine: str = platform.machine()) -> bytes:
    """The filter for this kind of machine. Raises KeyError for one that is not known."""
    column = _COLUMN[machine]
    number = {name: numbers[column] for name, numbers in _FILTERED.items()}
    code = [
        _step(_LOAD, _ARCH),
        _step(_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _step(_RETURN, _ERRNO | errno.ENOSYS),
        _step(_LOAD, _NUMBER),
        _step(_GREATER, _LAST_KNOWN, 0, 1),
        _step(_RETURN, _ERRNO | errno.ENOSYS),
        *_refuse(_EQUAL, number["clone3"], errno.ENOSYS),
    ]
    for numbers in _DENIED.values():
        if (denied := numbers[column]) is not None:
            code += _refuse(_EQUAL, denied)
    code += _when(number["clone"], 0, _refuse(_ANY_BIT, _NAMESPACES))
    code += _when(
        number["ioctl"], 1, [each for n in _TERMINAL_INPUT for each in _refuse(_EQUAL, n)]
    )
    code += _when(number["socket"], 0, _refuse(_EQUAL, _AF_VSOCK))
    code += _when(number["prlimit64"], 0, _only((0,)))
    code += _when(number["personality"], 0, _only(_PERSONALITIES))
    code.append(_step(_RETURN, _ALLOW))
    return b"".join(code)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _refuse(test: int, value: int, error: int = errno.EPERM) -> list[bytes]:
    return [_step(test, value, 0, 1), _step(_RETURN, _ERRNO | error)]


def _only(values: tuple[int, ...]) -> list[bytes]:
    allowed = [_step(_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
    return [*allowed, _step(_RETURN, _ERRNO | errno.EPERM)]


def _when(number: int, argument: int, test: list[bytes]) -> list[bytes]:
    """For this call: load an argument, test it, and allow what the test lets through."""
    body = [_step(_LOAD, 16 + 8 * argument), *test, _step(_RETURN, _ALLOW)]
    return [_step(_EQUAL, number, 0, len(body)), *body]
