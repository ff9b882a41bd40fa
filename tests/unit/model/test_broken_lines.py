"""Texts that would end a line of HTTP are refused where they are written: Envoy takes none."""

from __future__ import annotations

import pytest

from weft.errors import Origin
from weft.model.parse import parse_object


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({"redirect": {"uri": "/a\r\nb: c"}}, "spec.http[0].redirect.uri"),
        ({"redirect": {"authority": "a\0"}}, "spec.http[0].redirect.authority"),
        ({"redirect": {"prefixRewrite": "/\n"}}, "spec.http[0].redirect.prefixRewrite"),
        ({"rewrite": {"authority": "\0"}}, "spec.http[0].rewrite.authority"),
        ({"rewrite": {"uri": "/\n"}}, "spec.http[0].rewrite.uri"),
        ({"headers": {"request": {"set": {"a\r\nb": "c"}}}}, "spec.http[0].headers.request.set.a\r\nb"),
        ({"headers": {"response": {"remove": ["\0"]}}}, "spec.http[0].headers.response.remove[0]"),
    ],
)
def test_lines_that_end_early(rule: dict[str, object], path: str) -> None:
    resource, problems = parse_object(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}], **rule}]}
            if "redirect" not in rule
            else {"hosts": ["a"], "http": [rule]},
        },
        Origin("a.yaml"),
    )
    assert resource is None
    (problem,) = problems
    assert problem.message.endswith("has a line's end or a zero byte in it")
    assert problem.path.startswith(path.partition("set.")[0])
