"""What all servers of the suite share: how they are set up, called and stopped.

gRPC reads these variables when it is first imported, so they are set here, and
`services` and `gateway` import this package before anything else. With fork
support, a child between fork and exec can abort (grpc#43055).
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
