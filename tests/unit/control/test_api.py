"""The API over its Unix socket, with the real store behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

import aiohttp
import pytest

from weft.client import ApiClient, RefusedError, WatchEvent
from weft.client.api import TABLE
from weft.control.api.objects import Objects
from weft.model.catalog import KINDS

ROUTES = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"
ENTRIES = "/apis/networking.istio.io/v1/namespaces/default/workloadentries"
MERGE = {"content-type": "application/merge-patch+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}
STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}


def route(name: str = "reviews", subset: str = "v1", **metadata: Any) -> dict[str, Any]:
    destination = {"destination": {"host": "reviews", "subset": subset}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, **metadata},
        "spec": {"hosts": ["reviews"], "http": [{"route": [destination]}]},
    }


async def refused(api: ApiClient, method: str, path: str, body: Any = None, **options: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await api.raw(method, path, body, **options)
    assert caught.value.status["kind"] == "Status"
    assert caught.value.status["code"] == caught.value.code
    return caught.value


async def warnings_of(api: ApiClient, method: str, path: str, body: Any) -> list[str]:
    assert api.server.socket_path is not None
    connector = aiohttp.UnixConnector(str(api.server.socket_path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://weft{path}", json=body) as response,
    ):
        assert response.status < 300
        return response.headers.getall("warning", [])


async def test_created_objects_get_what_the_server_sets(api: ApiClient) -> None:
    made = await api.raw("POST", ROUTES, route(uid="mine", resourceVersion="", generation=7))
    metadata = made["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["generation"] == 1
    assert metadata["uid"] not in {"", "mine"}
    assert metadata["creationTimestamp"].endswith("Z")
    assert await api.raw("GET", f"{ROUTES}/reviews") == made


async def test_plain_text_of_a_secret_becomes_data(api: ApiClient) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "card"},
        "data": {"kept": "eA==", "told": "eQ=="},
        "stringData": {"told": "grüezi"},
    }
    made = await api.raw("POST", "/api/v1/namespaces/default/secrets", secret)
    assert made["data"] == {"kept": "eA==", "told": "Z3LDvGV6aQ=="}
    assert "stringData" not in made
    error = await refused(
        api, "POST", "/api/v1/namespaces/default/secrets", {**secret, "stringData": {"told": 7}}
    )
    assert error.code == 422


async def test_create_twice(api: ApiClient) -> None:
    await api.raw("POST", ROUTES, route())
    error = await refused(api, "POST", ROUTES, route())
    assert (error.code, error.reason) == (409, "AlreadyExists")


async def test_generated_names_differ(api: ApiClient) -> None:
    body = route()
    body["metadata"] = {"generateName": "r-"}
    names = {(await api.raw("POST", ROUTES, body))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("r-") and len(name) == 7 for name in names)


async def test_all_that_is_wrong_is_told_with_its_path(api: ApiClient) -> None:
    body = route()
    body["spec"] = {"hosts": "reviews", "http": [{"timeout": 3, "retriess": {}}]}
    error = await refused(api, "POST", f"{ROUTES}?fieldValidation=Strict", body)
    assert (error.code, error.reason) == (422, "Invalid")
    fields = {cause["field"] for cause in error.status["details"]["causes"]}
    assert {"spec.hosts", "spec.http[0].timeout", "spec.http[0].retriess"} <= fields
    assert await api.raw("GET", ROUTES) | {"metadata": {}} == {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualServiceList",
        "metadata": {},
        "items": [],
    }


async def test_unknown_fields_by_field_validation(api: ApiClient) -> None:
    body = route()
    body["spec"]["hostss"] = ["x"]
    error = await refused(api, "POST", f"{ROUTES}?fieldValidation=Strict", body)
    assert "did you mean 'hosts'" in error.message
    (warning,) = await warnings_of(api, "POST", ROUTES, body)
    assert warning.startswith("299 - ")
    assert "hostss" in warning
    assert "hostss" not in (await api.raw("GET", f"{ROUTES}/reviews"))["spec"]
    body["metadata"]["name"] = "other"
    assert await warnings_of(api, "POST", f"{ROUTES}?fieldValidation=Ignore", body) == []


async def test_what_only_warns_is_stored_and_what_breaks_a_rule_is_not(api: ApiClient) -> None:
    late = route("late")
    late["spec"]["http"] *= 2
    (warning,) = await warnings_of(api, "POST", ROUTES, late)
    assert "spec.http[1]" in warning
    wrong = route("wrong")
    wrong["spec"]["exportTo"] = [".", "default"]
    error = await refused(api, "POST", ROUTES, wrong)
    assert (error.code, error.reason) == (422, "Invalid")
    assert [cause["field"] for cause in error.status["details"]["causes"]] == ["spec.exportTo[1]"]


async def test_what_cannot_be_changed_is_refused(api: ApiClient) -> None:
    classes = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
    mine = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "mine"},
        "spec": {"controllerName": "example.com/a"},
    }
    await api.raw("POST", classes, mine)
    other = {"spec": {"controllerName": "example.com/b"}}
    error = await refused(api, "PATCH", f"{classes}/mine", other, headers=MERGE)
    assert [cause["field"] for cause in error.status["details"]["causes"]] == ["spec.controllerName"]
    await api.raw("PATCH", f"{classes}/mine", {"spec": {"description": "x"}}, headers=MERGE)
    maps = "/api/v1/namespaces/default/configmaps"
    sealed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sealed"}, "data": {"a": "b"}}
    await api.raw("POST", maps, {**sealed, "immutable": True})
    error = await refused(api, "PUT", f"{maps}/sealed", {**sealed, "data": {"a": "c"}})
    assert {cause["field"] for cause in error.status["details"]["causes"]} == {"immutable", "data"}


async def test_replace_needs_the_latest_version_when_it_names_one(api: ApiClient) -> None:
    first = await api.raw("POST", ROUTES, route())
    second = await api.raw("PUT", f"{ROUTES}/reviews", {**first, "spec": route(subset="v2")["spec"]})
    assert second["metadata"]["generation"] == 2
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    error = await refused(api, "PUT", f"{ROUTES}/reviews", first)
    assert (error.code, error.reason) == (409, "Conflict")
    await api.raw("PUT", f"{ROUTES}/reviews", route(subset="v3"))


async def test_a_write_that_changes_nothing_makes_no_revision(api: ApiClient) -> None:
    first = await api.raw("POST", ROUTES, route())
    assert await api.raw("PUT", f"{ROUTES}/reviews", first) == first
    assert await api.raw("PATCH", f"{ROUTES}/reviews", {}, headers=MERGE) == first


async def test_labels_alone_are_no_new_generation(api: ApiClient) -> None:
    await api.raw("POST", ROUTES, route())
    patched = await api.raw("PATCH", f"{ROUTES}/reviews", {"metadata": {"labels": {"a": "b"}}}, headers=MERGE)
    assert patched["metadata"]["generation"] == 1
    assert patched["metadata"]["labels"] == {"a": "b"}


async def test_patches(api: ApiClient) -> None:
    await api.raw("POST", ROUTES, route())
    merged = await api.raw("PATCH", f"{ROUTES}/reviews", {"spec": {"hosts": ["a"]}}, headers=MERGE)
    assert merged["spec"]["hosts"] == ["a"]
    operations = [{"op": "add", "path": "/spec/hosts/-", "value": "b"}]
    patched = await api.raw("PATCH", f"{ROUTES}/reviews", operations, headers=JSON_PATCH)
    assert patched["spec"]["hosts"] == ["a", "b"]
    error = await refused(api, "PATCH", f"{ROUTES}/reviews", {"spec": {}}, headers=STRATEGIC)
    assert error.code == 415
    error = await refused(
        api, "PATCH", f"{ROUTES}/reviews", {}, headers={"content-type": "application/apply-patch+yaml"}
    )
    assert error.code == 415
    assert "server-side" in error.message


async def test_a_patch_may_demand_a_revision(api: ApiClient) -> None:
    await api.raw("POST", ROUTES, route())
    patch = {"metadata": {"resourceVersion": "1"}, "spec": {"hosts": ["a"]}}
    assert (await refused(api, "PATCH", f"{ROUTES}/reviews", patch, headers=MERGE)).code == 409


async def test_racing_patches_all_arrive(api: ApiClient) -> None:
    await api.raw("POST", ROUTES, route())

    async def label(n: int) -> None:
        patch = {"metadata": {"labels": {f"l{n}": "x"}}}
        await api.raw("PATCH", f"{ROUTES}/reviews", patch, headers=MERGE)

    await asyncio.gather(*(label(n) for n in range(6)))
    assert len((await api.raw("GET", f"{ROUTES}/reviews"))["metadata"]["labels"]) == 6


async def test_strategic_merge_of_a_service(api: ApiClient) -> None:
    path = "/api/v1/namespaces/default/services"
    body = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80, "name": "http"}]}}
    await api.raw("POST", path, body)
    patch = {"spec": {"ports": [{"port": 81, "name": "more"}]}}
    patched = await api.raw("PATCH", f"{path}/a", patch, headers=STRATEGIC)
    assert [port["port"] for port in patched["spec"]["ports"]] == [80, 81]


async def test_status_and_spec_have_doors_of_their_own(api: ApiClient) -> None:
    body = {"metadata": {"name": "w"}, "spec": {"address": "10.0.0.1"}}
    await api.raw("POST", ENTRIES, {**body, "status": {"conditions": []}})
    assert "status" not in await api.raw("GET", f"{ENTRIES}/w")
    ready = {"conditions": [{"type": "Healthy", "status": "True"}]}
    patch = {"spec": {"address": "10.9.9.9"}, "status": ready}
    patched = await api.raw("PATCH", f"{ENTRIES}/w/status", patch, headers=MERGE)
    assert (patched["spec"]["address"], patched["status"]) == ("10.0.0.1", ready)
    assert patched["metadata"]["generation"] == 1
    kept = await api.raw("PUT", f"{ENTRIES}/w", {**body, "spec": {"address": "10.0.0.2"}})
    assert (kept["spec"]["address"], kept["status"]) == ("10.0.0.2", ready)


async def test_status_stays_out_of_history_and_so_do_registrations(api: ApiClient, objects: Objects) -> None:
    registered = {
        "metadata": {"name": "w", "labels": {"weft.dev/node": "n1"}},
        "spec": {"address": "10.0.0.1"},
    }
    await api.raw("POST", ENTRIES, registered)
    await api.raw("POST", ROUTES, route())
    status: dict[str, Any] = {"status": {"conditions": []}}
    await api.raw("PATCH", f"{ROUTES}/reviews/status", status, headers=MERGE)
    recorded = [change.key.name for change in await objects.store.history()]
    assert recorded[0] == "reviews"
    assert recorded.count("reviews") == 1
    assert "w" not in recorded


async def test_versions_are_views_of_one_object(api: ApiClient) -> None:
    beta = ROUTES.replace("/v1/", "/v1beta1/")
    await api.raw("POST", beta, {**route(), "apiVersion": "networking.istio.io/v1beta1"})
    assert (await api.raw("GET", f"{ROUTES}/reviews"))["apiVersion"] == "networking.istio.io/v1"
    assert (await api.raw("GET", f"{beta}/reviews"))["apiVersion"] == "networking.istio.io/v1beta1"


async def test_dry_run_changes_nothing(api: ApiClient) -> None:
    would = await api.raw("POST", f"{ROUTES}?dryRun=All", route())
    assert would["spec"] == route()["spec"]
    assert (await refused(api, "GET", f"{ROUTES}/reviews")).code == 404
    await api.raw("POST", ROUTES, route())
    await api.raw("DELETE", f"{ROUTES}/reviews?dryRun=All")
    await api.raw("DELETE", f"{ROUTES}/reviews", {"dryRun": ["All"]})
    await api.raw("GET", f"{ROUTES}/reviews")
    assert (await refused(api, "POST", f"{ROUTES}?dryRun=Some", route("x"))).code == 400


async def test_delete(api: ApiClient) -> None:
    made = await api.raw("POST", ROUTES, route())
    wrong = {"preconditions": {"uid": "another"}}
    assert (await refused(api, "DELETE", f"{ROUTES}/reviews", wrong)).code == 409
    gone = await api.raw("DELETE", f"{ROUTES}/reviews")
    assert (gone["status"], gone["details"]["uid"]) == ("Success", made["metadata"]["uid"])
    error = await refused(api, "DELETE", f"{ROUTES}/reviews")
    assert (error.code, error.message) == (404, 'virtualservices.networking.istio.io "reviews" not found')


async def test_finalizers_hold_an_object_back(api: ApiClient) -> None:
    await api.raw("POST", ROUTES, route(finalizers=["example.com/wait"]))
    waiting = await api.raw("DELETE", f"{ROUTES}/reviews")
    assert waiting["metadata"]["deletionTimestamp"]
    await api.raw("PATCH", f"{ROUTES}/reviews", {"metadata": {"finalizers": None}}, headers=MERGE)
    assert (await refused(api, "GET", f"{ROUTES}/reviews")).code == 404


async def test_delete_collection_takes_what_is_selected(api: ApiClient) -> None:
    for name, app in (("a", "x"), ("b", "x"), ("c", "y")):
        await api.raw("POST", ROUTES, route(name, labels={"app": app}))
    await api.raw("DELETE", ROUTES, query={"labelSelector": "app=x"})
    assert [item["metadata"]["name"] for item in (await api.raw("GET", ROUTES))["items"]] == ["c"]


async def test_a_namespace_comes_with_its_first_object_and_takes_all_along(api: ApiClient) -> None:
    await api.raw("POST", ROUTES.replace("default", "shop"), route())
    namespace = await api.raw("GET", "/api/v1/namespaces/shop")
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
    assert namespace["status"] == {"phase": "Active"}
    await api.raw("DELETE", "/api/v1/namespaces/shop")
    everywhere = await api.raw("GET", "/apis/networking.istio.io/v1/virtualservices")
    assert everywhere["items"] == []
    assert (await refused(api, "DELETE", "/api/v1/namespaces/default")).code == 403


async def test_the_path_and_the_body_must_agree(api: ApiClient) -> None:
    for path, body in (
        (ROUTES, route(namespace="other")),
        (ROUTES, {**route(), "kind": "Gateway"}),
        (ROUTES, {**route(), "apiVersion": "v1"}),
        (ROUTES, [1]),
    ):
        assert (await refused(api, "POST", path, body)).code == 400
    await api.raw("POST", ROUTES, route())
    assert (await refused(api, "PUT", f"{ROUTES}/reviews", route("other"))).code == 400


async def test_pages(api: ApiClient) -> None:
    for n in range(5):
        await api.raw("POST", ROUTES, route(f"r{n}"))
    first = await api.raw("GET", ROUTES, query={"limit": "2"})
    assert first["metadata"]["remainingItemCount"] == 3
    await api.raw("DELETE", f"{ROUTES}/r3")
    query = {"limit": "2", "continue": first["metadata"]["continue"]}
    second = await api.raw("GET", ROUTES, query=query)
    names = [item["metadata"]["name"] for page in (first, second) for item in page["items"]]
    assert names == ["r0", "r1", "r2", "r4"]
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}
    assert (await refused(api, "GET", ROUTES, query={"continue": "rubbish"})).code == 400


async def test_which_state_a_list_shows(api: ApiClient) -> None:
    first = await api.raw("POST", ROUTES, route())
    await api.raw("POST", ROUTES, route("b"))
    old = first["metadata"]["resourceVersion"]
    for query in ({"resourceVersion": "0"}, {"resourceVersion": old}):
        assert len((await api.raw("GET", ROUTES, query=query))["items"]) == 2
    exact = {"resourceVersion": old, "resourceVersionMatch": "Exact"}
    assert (await refused(api, "GET", ROUTES, query=exact)).code == 410
    error = await refused(api, "GET", ROUTES, query={"resourceVersion": "999"})
    assert (error.code, error.reason) == (504, "Timeout")


async def test_selectors(api: ApiClient) -> None:
    await api.raw("POST", ROUTES, route("a", labels={"app": "a"}))
    await api.raw("POST", ROUTES, route("b"))
    for query in ({"labelSelector": "app"}, {"fieldSelector": "metadata.name=a"}):
        found = await api.raw("GET", ROUTES, query=query)
        assert [item["metadata"]["name"] for item in found["items"]] == ["a"]
    assert (await refused(api, "GET", ROUTES, query={"fieldSelector": "spec.x=a"})).code == 400


async def test_table(api: ApiClient) -> None:
    await api.raw("POST", ROUTES, route())
    table = await api.raw("GET", ROUTES, headers={"accept": TABLE})
    assert table["kind"] == "Table"
    names = [column["name"] for column in table["columnDefinitions"]]
    assert (names[0], names[-1]) == ("Name", "Age")
    cells = dict(zip(names, table["rows"][0]["cells"], strict=True))
    assert (cells["Name"], cells["Hosts"]) == ("reviews", '["reviews"]')
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def watched(stream: AsyncIterator[WatchEvent], count: int) -> list[tuple[str, str, str]]:
    seen: list[tuple[str, str, str]] = []
    async with asyncio.timeout(10), aclosing(cast(Any, stream)) as events:
        async for event in events:
            metadata = event.object["metadata"]
            seen.append((event.kind, metadata.get("name", ""), metadata["resourceVersion"]))
            if len(seen) == count:
                break
    return seen


async def kind(api: ApiClient, plural: str) -> Any:
    return next(resource for resource in await api.resources() if resource.called(plural))


async def test_watch_begins_with_what_is_there(api: ApiClient) -> None:
    first = await api.raw("POST", ROUTES, route())
    routes = await kind(api, "virtualservices")
    stream = api.watch(routes, "default")
    async with asyncio.timeout(10):
        there = await anext(stream)
    assert there.kind == "ADDED"
    assert there.object["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    await api.raw("PATCH", f"{ROUTES}/reviews", {"spec": {"hosts": ["a"]}}, headers=MERGE)
    await api.raw("POST", ROUTES.replace("default", "other"), route("elsewhere"))
    await api.raw("DELETE", f"{ROUTES}/reviews")
    assert [event[0] for event in await watched(stream, 2)] == ["MODIFIED", "DELETED"]


async def test_watch_from_a_revision_misses_nothing(api: ApiClient) -> None:
    first = await api.raw("POST", ROUTES, route())
    since = first["metadata"]["resourceVersion"]
    second = await api.raw("POST", ROUTES, route("b"))
    await api.raw("DELETE", f"{ROUTES}/reviews")
    routes = await kind(api, "vs")
    assert await watched(api.watch(routes, since=since), 2) == [
        ("ADDED", "b", second["metadata"]["resourceVersion"]),
        ("DELETED", "reviews", str(int(second["metadata"]["resourceVersion"]) + 1)),
    ]


async def test_watch_tells_when_an_object_leaves_the_selection(api: ApiClient) -> None:
    first = await api.raw("POST", ROUTES, route(labels={"app": "a"}))
    since = first["metadata"]["resourceVersion"]
    for labels in ({"app": "b"}, {"app": "a"}):
        await api.raw("PATCH", f"{ROUTES}/reviews", {"metadata": {"labels": labels}}, headers=MERGE)
    seen = await watched(api.watch(await kind(api, "vs"), since=since, selector="app=a"), 2)
    assert [event[0] for event in seen] == ["DELETED", "ADDED"]


async def test_watch_from_compacted_events_is_gone(api: ApiClient, objects: Objects) -> None:
    for n in range(4):
        await api.raw("POST", ROUTES, route(f"r{n}"))
    await objects.store.compact(objects.store.revision)
    with pytest.raises(RefusedError) as gone:
        await watched(api.watch(await kind(api, "vs"), since="1"), 1)
    assert (gone.value.code, gone.value.reason) == (410, "Expired")


async def stream_text(api: ApiClient, query: Mapping[str, str]) -> list[dict[str, Any]]:
    assert api.server.socket_path is not None
    connector = aiohttp.UnixConnector(str(api.server.socket_path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://weft{ROUTES}", params={"watch": "true", **query}) as response,
    ):
        return [json.loads(line) for line in (await response.read()).splitlines()]


async def test_a_watch_ends_in_time_with_a_bookmark(api: ApiClient, objects: Objects) -> None:
    await api.raw("POST", ROUTES, route())
    events = await stream_text(api, {"timeoutSeconds": "1", "allowWatchBookmarks": "true"})
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
    assert events[-1]["object"]["metadata"]["resourceVersion"] == str(objects.store.revision)


async def test_a_watch_list_marks_the_end_of_the_first_state(api: ApiClient) -> None:
    await api.raw("POST", ROUTES, route())
    query = {
        "timeoutSeconds": "1", "allowWatchBookmarks": "true", "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
    }  # fmt: skip
    events = await stream_text(api, query)
    assert events[0]["type"] == "ADDED"
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_every_kind_is_discovered_and_described(api: ApiClient) -> None:
    served = {(r.group, r.kind) for r in await api.resources()}
    assert served >= {(row.group, row.kind) for row in KINDS}
    index = await api.raw("GET", "/openapi/v3")
    for row in KINDS:
        for version in row.versions:
            place = f"apis/{row.group}/{version}" if row.group else f"api/{version}"
            document = await api.raw("GET", index["paths"][place]["serverRelativeURL"])
            about = {"group": row.group, "version": version, "kind": row.kind}
            (schema,) = [
                schema
                for schema in document["components"]["schemas"].values()
                if about in schema.get("x-kubernetes-group-version-kind", ())
            ]
            assert "metadata" in schema["properties"]
            assert "anyOf" not in json.dumps(schema["properties"]["metadata"])


async def test_references_in_the_schemas_lead_somewhere(api: ApiClient) -> None:
    index = await api.raw("GET", "/openapi/v3")
    for place in index["paths"]:
        document = await api.raw("GET", f"/openapi/v3/{place}")
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        text = json.dumps(document)
        used = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
        assert used <= known


async def test_plain_discovery(api: ApiClient) -> None:
    assert (await api.raw("GET", "/api"))["versions"] == ["v1"]
    groups = (await api.raw("GET", "/apis"))["groups"]
    assert "networking.istio.io" in {group["name"] for group in groups}
    resources = (await api.raw("GET", "/apis/networking.istio.io/v1"))["resources"]
    assert {"virtualservices", "virtualservices/status"} <= {resource["name"] for resource in resources}
    assert (await api.raw("GET", "/apis/networking.istio.io"))["preferredVersion"]["version"] == "v1"
    for path in (
        "/apis/nothing.io",
        "/apis/nothing.io/v1",
        "/api/v2",
        "/apis/networking.istio.io/v1/xs",
        "/x",
    ):
        assert (await refused(api, "GET", path)).code == 404


async def test_owned_objects_change_only_by_force(api: ApiClient, objects: Objects) -> None:
    from weft.control.api.apply import Applier, Item
    from weft.control.api.writes import Options

    async def nobody(_: int, __: float) -> Mapping[str, Any]:
        return {}

    owner = Options(owner="files:/etc/mesh")
    await Applier(objects, nobody).apply([Item(wire=route(), source="/etc/mesh/a.yaml:3:1")], owner)
    for method, body, headers in (
        ("PUT", route(subset="v2"), None),
        ("PATCH", {"spec": {"hosts": ["x"]}}, MERGE),
        ("DELETE", None, None),
    ):
        error = await refused(api, method, f"{ROUTES}/reviews", body, headers=headers)
        assert error.code == 409
        assert "/etc/mesh/a.yaml:3:1" in error.message
    status: dict[str, Any] = {"status": {"conditions": []}}
    await api.raw("PATCH", f"{ROUTES}/reviews/status", status, headers=MERGE)
    force = {**MERGE, "weft-force": "true"}
    await api.raw("PATCH", f"{ROUTES}/reviews", {"spec": {"hosts": ["x"]}}, headers=force)
    (stored,) = await objects.store.list("networking.istio.io/VirtualService")
    assert stored.owner is None


async def test_reviews(api: ApiClient) -> None:
    who = await api.raw("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    assert who["status"]["userInfo"]["username"].startswith("unix:")
    spec = {"spec": {"resourceAttributes": {"verb": "delete", "resource": "virtualservices"}}}
    may = await api.raw("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", spec)
    assert may["status"] == {"allowed": True, "reason": 'RBAC: allowed to Group "system:masters"'}


async def test_broken_bodies(api: ApiClient) -> None:
    assert api.server.socket_path is not None
    connector = aiohttp.UnixConnector(str(api.server.socket_path))
    async with aiohttp.ClientSession(connector=connector) as session:
        for data, content_type, code in (
            (b"{", "application/json", 400),
            (b"\xff\xfe", "application/json", 400),
            (b"a: b", "application/yaml", 415),
            (b" " * (8 * 1024 * 1024 + 1), "application/json", 413),
        ):
            headers = {"content-type": content_type}
            async with session.post(f"http://weft{ROUTES}", data=data, headers=headers) as response:
                assert response.status == code
                assert (await response.json())["kind"] == "Status"
