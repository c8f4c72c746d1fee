"""One spelling for each host, and which addresses are public."""

import socket
from ipaddress import ip_address, ip_network

import pytest

from agent.egress.addresses import own, public
from agent.egress.names import AmbiguousError, canonical, port_of, split_authority
from agent.egress.policy import Match, Policy


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a_b.example", "a_b.example"),
        ("93.184.216.34", ip_address("93.184.216.34")),
        ("[2606:2800:220:1::1]", ip_address("2606:2800:220:1::1")),
        ("[::ffff:127.0.0.1]", ip_address("::ffff:127.0.0.1")),
    ],
)
def test_has_one_spelling(text: str, host: object) -> None:
    assert canonical(text) == host


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a..b", ".a", "a...", "-a.example", "a-.example", "a b", "a\tb", "a\0b"),
        *("%65xample.org", "example.org%00", "bücher.example", "1\u3002example.org", "exämple"),
        *("127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.01", "0x7f.0.0.1", "1.2.3"),
        *("127.0.0.1.", "256.1.1.1", "1.2.3.4.5", "foo.1", "foo.0x1", "0x", "127.0.0.1\n"),
        *("[::1", "[::1%eth0]", "[127.0.0.1]", "[::1]x", "::1", "[]", "[fe80::1%251]", "a" * 64),
        ".".join(["a" * 60] * 5),
    ],
)
def test_refuses_what_can_be_read_otherwise(text: str) -> None:
    with pytest.raises(AmbiguousError):
        canonical(text)


@pytest.mark.parametrize("text", ["", "0", "080", "65536", "+80", "80 ", "8_0", "\u0668", "0x50"])
def test_refuses_what_is_no_port(text: str) -> None:
    with pytest.raises(AmbiguousError):
        port_of(text)


@pytest.mark.parametrize("text", ["a:", "a:1:2", "::1:80", "[::1]80"])
def test_refuses_what_is_no_authority(text: str) -> None:
    with pytest.raises(AmbiguousError):
        split_authority(text)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.9"),
        *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.168.1.1", "192.0.0.192"),
        *("168.63.129.16", "192.88.99.1", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("::ffff:8.8.8.8", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2001::1", "2001:db8::1", "fec0::1", "3fff::1", "100::1"),
    ],
)
def test_is_not_public(address: str) -> None:
    assert not public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111"])
def test_is_public(address: str) -> None:
    assert public(ip_address(address))


def test_knows_the_addresses_of_this_host() -> None:
    assert own(ip_address("127.0.0.1"))
    assert not own(ip_address("203.0.113.77"))


def _policy(*rules: tuple[str, list[int]], networks: tuple[str, ...] = ()) -> Policy:
    listed = [{"host": host, "ports": ports} for host, ports in rules]
    return Policy.from_json({"rules": listed, "networks": networks})


def test_a_list_is_exact() -> None:
    policy = _policy(("Example.org.", [443]), ("*.example.net", [80, 443]), ("[2606::0:1]", [1]))
    assert policy.match("example.org", 443) is Match.NAMED
    assert policy.match("example.org", 80) is Match.OTHER_PORT
    assert policy.match("a.example.org", 443) is Match.NO
    assert policy.match("example.net", 443) is Match.NO
    assert policy.match("a.b.example.net", 80) is Match.NAMED
    assert policy.match("badexample.net", 80) is Match.NO
    assert policy.match(ip_address("2606::1"), 1) is Match.NAMED
    assert policy.match(ip_address("8.8.8.8"), 443) is Match.NO


def test_a_star_is_every_public_host_and_no_lent_one() -> None:
    policy = _policy(("*", [443]), ("inner.example", [443]), networks=("10.0.0.0/8",))
    assert policy.match("anything.example", 443) is Match.PUBLIC
    assert policy.match(ip_address("8.8.8.8"), 443) is Match.PUBLIC
    assert not policy.forbids(ip_address("8.8.8.8"), Match.PUBLIC)
    assert policy.forbids(ip_address("10.0.0.1"), Match.PUBLIC) == "address_not_public"
    assert not policy.forbids(ip_address("10.0.0.1"), Match.NAMED)
    assert policy.forbids(ip_address("192.168.0.1"), Match.NAMED) == "address_not_public"


def test_a_lent_network_does_not_lend_the_node_itself() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no address but loopback")
        mine = ip_address(probe.getsockname()[0])
    policy = Policy.from_json(
        {"rules": [], "networks": [str(ip_network(f"{mine}/31", strict=False)), "127.0.0.0/8"]}
    )
    assert policy.forbids(mine, Match.NAMED) == "address_of_this_host"
    assert not policy.forbids(ip_address(int(mine) ^ 1), Match.NAMED)
    assert not policy.forbids(ip_address("127.0.0.1"), Match.NAMED)
