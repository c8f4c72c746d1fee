"""The way out of sandboxes: a proxy that knows for each which hosts and ports it may reach.

A process of its own, with the standard library alone, that outlives every service. It accepts on
a listener that the agent opened on the loopback of its sandbox; the sandbox has no other way.
"""

EGRESS_UID = 60901
"""User and group of the proxy when it is started as root."""

PORT = 3128
"""Of the listener, on the loopback of every sandbox that has a way out."""
