"""How the names of HTTP/1 headers are written."""

from __future__ import annotations

from typing import Final

from weft.protos import core_v3, preserve_case_v3
from weft.protos.wire import pack

_NAME: Final = "envoy.http.stateful_header_formatters.preserve_case"


def keep_case(options: core_v3.Http1ProtocolOptions) -> None:
    """Names go on as they came; Envoy would write them in lower case."""
    formatter = options.header_key_format.stateful_formatter
    formatter.name = _NAME
    formatter.typed_config.CopyFrom(pack(preserve_case_v3.PreserveCaseFormatterConfig()))
