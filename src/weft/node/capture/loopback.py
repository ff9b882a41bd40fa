"""Which parts of 127.0.0.0/8 belong to weft. Standard library only: the wrapper reads it."""

from __future__ import annotations

from typing import Final

# By the second byte. A workload that shares the host's network has an address in each: its application
# listens at the one, and its sidecar, for the peers, at the other (only under `weft up`).
APPLICATIONS: Final = range(64, 128)
PEERS: Final = range(128, 192)
# A gateway of `weft up` whose ports another has already.
GATEWAYS: Final = range(192, 256)
