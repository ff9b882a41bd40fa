"""The API's client, for commands and for the node: over the Unix socket or HTTPS.

It knows paths and JSON, no models: whoever must stay light can import it.
"""

from weft.client.api import ApiClient, RefusedError, Resource, WatchEvent
from weft.client.locate import locate
from weft.client.server import Server

__all__ = ["ApiClient", "RefusedError", "Resource", "Server", "WatchEvent", "locate"]
