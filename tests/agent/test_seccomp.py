"""The filter, run by a small BPF machine: also for machines that these tests do not run on."""

import errno
import struct

import pytest

from agent.launcher import seccomp

ALLOW = 0x7FFF0000


def run(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """0 when the call is allowed, else its errno."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("<HBBI", program))
    at = value = 0
    while True:
        kind, if_true, if_false, operand = code[at]
        at += 1
        if kind == 0x20:
            (value,) = struct.unpack_from("<I", data, operand)
        elif kind == 0x06:
            return 0 if operand == ALLOW else operand & 0xFFFF
        else:
            tests = {0x15: value == operand, 0x25: value > operand, 0x45: bool(value & operand)}
            at += if_true if tests[kind] else if_false


X86, ARM = ("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)


@pytest.mark.parametrize(
    ("machine", "number", "arguments", "expected"),
    [
        (X86, 0, (), 0),  # read
        (X86, 165, (), errno.EPERM),  # mount
        (X86, 101, (), errno.EPERM),  # ptrace
        (X86, 56, (0x11,), 0),  # clone: fork
        (X86, 56, (0x10000011,), errno.EPERM),  # clone with CLONE_NEWUSER
        (X86, 435, (), errno.ENOSYS),  # clone3
        (X86, 302, (0,), 0),  # prlimit64 of itself
        (X86, 302, (1,), errno.EPERM),
        (X86, 16, (0, 0x5412), errno.EPERM),  # ioctl TIOCSTI
        (X86, 16, (0, 0x5401), 0),
        (X86, 41, (40,), errno.EPERM),  # socket AF_VSOCK
        (X86, 41, (1,), 0),
        (X86, 135, (0xFFFFFFFF,), 0),  # personality, asking
        (X86, 135, (0x0040000,), errno.EPERM),  # ADDR_NO_RANDOMIZE
        (X86, 9999, (), errno.ENOSYS),
        (X86, 0x40000000, (), errno.ENOSYS),  # read of x32
        (ARM, 63, (), 0),  # read
        (ARM, 40, (), errno.EPERM),  # mount
        (ARM, 117, (), errno.EPERM),  # ptrace
        (ARM, 97, (), errno.EPERM),  # unshare
        (ARM, 220, (0x20000000,), errno.EPERM),  # clone with CLONE_NEWPID
        (ARM, 261, (1,), errno.EPERM),  # prlimit64
        (ARM, 261, (0,), 0),
    ],
)
def test_calls_are_allowed_or_refused(
    machine: tuple[str, int], number: int, arguments: tuple[int, ...], expected: int
) -> None:
    name, arch = machine
    assert run(seccomp.program(name), arch, number, *arguments) == expected


def test_calls_of_another_architecture_do_not_exist() -> None:
    assert run(seccomp.program("x86_64"), 0x40000003, 11) == errno.ENOSYS
