"""Counts the messages of gRPC calls, for Istio's metrics.

Envoy's own filter counts them, but tells both numbers as one text, which no metric can take apart: neither
the formatters nor CEL make numbers of it. So Lua does, as seldom as can be: at a call's end, and with each
further part of a stream of answers, so that one that is broken off is counted as far as it came. What is no
gRPC goes past it.
"""

from __future__ import annotations

from typing import Final

from weft.ir.listener import HttpHandler
from weft.names import GRPC_MESSAGES, GRPC_MESSAGES_FILTER
from weft.protos import (
    grpc_stats_v3,
    lua_v3,
    match_action_v3,
    match_delegate_v3,
    matcher_v3,
    xds_core_v3,
    xds_matcher_v3,
)
from weft.protos.wire import pack

COUNT: Final = "envoy.filters.http.grpc_stats"
NOTE: Final = GRPC_MESSAGES_FILTER
_GRPC: Final = "application/grpc"
_LUA: Final = f"""\
local function note(handle)
  local counts = handle:streamInfo():filterState():get("{COUNT}")
  if counts then
    local request, response = string.match(counts, "(%d+),(%d+)")
    local numbers = {{request = tonumber(request), response = tonumber(response)}}
    handle:streamInfo():dynamicMetadata():set("{GRPC_MESSAGES}", "messages", numbers)
  end
end
function envoy_on_response(handle)
  local further = false
  for _ in handle:bodyChunks() do
    if further then note(handle) end
    further = true
  end
  handle:trailers()
  note(handle)
end
"""


def wanted(unit: HttpHandler) -> bool:
    """Only where calls of gRPC may come."""
    return unit.grpc


def count() -> grpc_stats_v3.FilterConfig:
    """Both numbers, as a filter state."""
    made = grpc_stats_v3.FilterConfig(emit_filter_state=True)
    made.stats_for_all_methods.value = False
    return made


def note() -> match_delegate_v3.ExtensionWithMatcher:
    """The numbers, as metadata that metrics read. It sees answers after ``count`` if it stands before it."""
    made = match_delegate_v3.ExtensionWithMatcher()
    made.extension_config.name = NOTE
    code = lua_v3.Lua(shared_vm_id=NOTE)
    code.default_source_code.inline_string = _LUA
    made.extension_config.typed_config.CopyFrom(pack(code))
    row = made.xds_matcher.matcher_list.matchers.add()
    test = row.predicate.not_matcher.single_predicate
    kind = matcher_v3.HttpRequestHeaderMatchInput(header_name="content-type")
    test.input.CopyFrom(xds_core_v3.TypedExtensionConfig(name="content-type", typed_config=pack(kind)))
    test.value_match.prefix = _GRPC
    skip = xds_matcher_v3.Matcher.OnMatch()
    skip.action.CopyFrom(
        xds_core_v3.TypedExtensionConfig(name="skip", typed_config=pack(match_action_v3.SkipFilter()))
    )
    row.on_match.CopyFrom(skip)
    return made
