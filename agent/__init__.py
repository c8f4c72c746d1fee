"""What runs beside and inside a sandbox: agent, launcher, and the formats they share.

Imports nothing but the standard library. `agent.inside` runs as pid 1 of a sandbox, and it and
what it imports (`frames`, `formats`, `removal`) load only what starts in milliseconds.
"""

SANDBOX_UID = 60900
"""User and group id of everything in a sandbox when the launcher is root: inside always, outside
unless the worktree is of another user, that of its tenant."""

KEEPER_UID = SANDBOX_UID + 1
"""User and group id of the repositories, which no sandbox may write."""

PROTOCOL_VERSION = 1
"""Of the agent's and the launcher's sockets; a peer with another major version is refused."""

LOG_VERSION = 1
"""Of the output log and the result file."""

MOST_PREPARED = 4
"""Processes of a sandbox that wait for commands to come. They are over and above its limit."""

FEWEST_PROCESSES = 16
"""A sandbox that is allowed fewer processes prepares nothing, so that its limit is exact."""

DOOR = "/.cove/door"
"""Where an agent in a container, which no launcher has prepared, is given what it starts with."""
