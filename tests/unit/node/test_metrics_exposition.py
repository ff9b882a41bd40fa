from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from weft.node.metrics.exposition import Family, Page, of_application, of_proxy, own

WHO = {"namespace": "shop", "pod": "web-0"}

ENVOY = rb"""# TYPE envoy_istio_requests_total counter
envoy_istio_requests_total{reporter="source",source_app="",to="web",said="a\"} 1\nup 7,pod=\"x=\"\""} 3
envoy_istio_requests_total{reporter="destination",source_app=""} 4
# TYPE envoy_istio_request_bytes histogram
envoy_istio_request_bytes_bucket{reporter="source",source_app="",le="1"} 0
envoy_istio_request_bytes_bucket{reporter="source",source_app="",le="+Inf"} 2
envoy_istio_request_bytes_sum{reporter="source",source_app=""} 41.5
envoy_istio_request_bytes_count{reporter="source",source_app=""} 2
# TYPE envoy_cluster_upstream_cx_active gauge
envoy_cluster_upstream_cx_active{envoy_cluster_name="xds-grpc"} 1

# TYPE envoy_server_live gauge
envoy_server_live{} 1
"""


def read(page: Page) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(b"".join(page.chunks()).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def merged(*families: list[Family]) -> Page:
    page = Page()
    for one in families:
        page.add(one)
    return page


def test_a_proxys_series_are_named_as_istios() -> None:
    found = read(merged(list(of_proxy(ENVOY, WHO))))
    (labels, count), (others, more) = found["istio_requests_total"]
    assert labels == {
        **WHO,
        "reporter": "source",
        "source_app": "unknown",
        "to": "web",
        "said": 'a"} 1\nup 7,pod="x=""',
    }
    assert others == {**WHO, "reporter": "destination", "source_app": "unknown"}
    assert (count, more) == (3.0, 4.0)
    assert [labels["le"] for labels, _ in found["istio_request_bytes_bucket"]] == ["1", "+Inf"]
    assert found["istio_request_bytes_sum"] == [
        ({**WHO, "reporter": "source", "source_app": "unknown"}, 41.5)
    ]
    assert found["envoy_cluster_upstream_cx_active"] == [({**WHO, "cluster_name": "xds-grpc"}, 1)]
    assert found["envoy_server_live"] == [(WHO, 1)]
    assert "up" not in found


def test_a_name_stands_at_one_place_whoever_says_it() -> None:
    others = list(of_proxy(ENVOY, {**WHO, "pod": "web-1"}))
    page = merged(list(of_proxy(ENVOY, WHO)), others)
    text = b"".join(page.chunks()).decode()
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert types == sorted(set(types))
    assert [labels["pod"] for labels, _ in read(page)["envoy_server_live"]] == ["web-0", "web-1"]


def test_a_label_of_a_proxy_that_hides_ours_is_renamed() -> None:
    text = b'# TYPE envoy_istio_x gauge\nenvoy_istio_x{pod="mine",said="a,pod="} 1\n'
    (labels, _) = read(merged(list(of_proxy(text, WHO))))["istio_x"][0]
    assert labels == {**WHO, "exported_pod": "mine", "said": "a,pod="}


def test_bytes_that_are_no_text_are_replaced() -> None:
    text = b'# TYPE envoy_x gauge\nenvoy_x{a="\xff\xfe"} 1\n'
    ((labels, _),) = read(merged(list(of_proxy(text, WHO))))["envoy_x"]
    assert labels["a"] == "\ufffd\ufffd"


APPLICATION = rb"""
# HELP http_requests_total Requests, "all" of them \\ here.
# TYPE http_requests_total counter
http_requests_total{ method = "post" , code="200", } 1027 1395066363000
http_requests_total{method="get",pod="mine"} 3e2
# a remark
# TYPE rpc_seconds summary
rpc_seconds{quantile="0.5"} NaN
rpc_seconds_sum 1.7560473e+07
rpc_seconds_count 2693
something_weird{problem="division by zero"} +Inf
  indented 12.47
"""


def test_an_applications_series_bear_its_workload() -> None:
    families, dropped = of_application(APPLICATION, WHO)
    assert dropped == 0
    page = merged(families)
    found = read(page)
    assert found["http_requests_total"] == [
        ({**WHO, "method": "post", "code": "200"}, 1027),
        ({**WHO, "method": "get", "exported_pod": "mine"}, 300),
    ]
    assert found["rpc_seconds_sum"] == [(WHO, 1.7560473e07)]
    assert found["something_weird"][0][1] == float("inf")
    assert found["indented"] == [(WHO, 12.47)]
    text = b"".join(page.chunks())
    assert b"1027 1395066363000\n" in text
    assert b'# HELP http_requests_total Requests, "all" of them \\\\ here.\n' in text
    assert text.count(b"# TYPE rpc_seconds summary") == 1


def test_what_cannot_be_read_is_left_out_and_counted() -> None:
    bad = (
        b'broken{a="x} 1',
        b"no_value",
        b"no_number{} one",
        b'twice{a="1",a="2"} 1',
        b'bad name{a="1"} 1',
        b'x{a="1"}',
        b'x{a="1" b="2"} 1',
        b'x{1a="1"} 1',
        b'x{a="\\"} 1',
        b'istio_requests_total{reporter="source"} 1000000',
        b'container_cpu_usage_seconds_total{container="istio-proxy"} 9',
        b"weft_node_source_up 0",
        b"<html>",
        b"x 1 2 3",
    )
    families, dropped = of_application(b"\n".join((b"good 1", *bad, b"good_too 2")), WHO)
    assert {family.name for family in families} == {b"good", b"good_too"}
    assert dropped == len(bad)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=8))
def test_whatever_an_application_says_the_page_can_be_read(lines: list[str]) -> None:
    families, _ = of_application("\n".join(["sane 1", *lines]).encode(), WHO)
    found = read(merged(families))
    assert all(labels.items() >= WHO.items() for series in found.values() for labels, _ in series)


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_value_of_ours_comes_back_as_it_went(value: str) -> None:
    family = own("weft_node_x", "gauge", "X.")
    family.add(1, said=value)
    ((labels, number),) = read(merged([family]))["weft_node_x"]
    # The parser ends lines at every kind of line end that Python knows; the format knows one.
    if len(value.splitlines()) <= 1:
        assert labels == {"said": value}
    assert number == 1


def test_a_large_page_comes_in_parts() -> None:
    text = b"# TYPE envoy_x gauge\n" + b"".join(b'envoy_x{n="%d"} 1\n' % n for n in range(10_000))
    page = Page()
    for number in range(5):
        page.add(of_proxy(text, {"pod": f"web-{number}"}))
    parts = list(page.chunks())
    assert len(parts) > 4
    assert len(read(page)["envoy_x"]) == 50_000
