"""What all servers of the suite share: how they are set up, called and stopped.

gRPC reads these variables when it is first imported, so they are set here, and
`services` and `gateway` import this package before anything else. With fork
support, a child between fork and exec can abort (grpc#43055). Its event engine hands each
event from one thread to another, and that to the loop's: the poller that it replaces is the
thread that hands it to the loop, and costs a fifth less for each call; see
docs/decisions/0049-fewer-hops.md.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
