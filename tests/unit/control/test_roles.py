"""Roles over the API, with real sockets and real tokens: who may what, and who cannot get more."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from weft.control.access import authenticator
from weft.control.api.app import create_app
from weft.control.api.objects import Objects
from weft.control.api.serve import serve_api
from weft.identity.users import Users
from weft.store.sqlite import SqliteStore

RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROUTES = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices"
SECRETS = "/api/v1/namespaces/shop/secrets"
MERGE = "application/merge-patch+json"


@dataclass
class Api:
    http: aiohttp.ClientSession
    users: Users
    tokens: dict[str, str]

    async def __call__(
        self, who: str, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        if who:
            headers["authorization"] = f"Bearer {await self.token(who)}"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            headers.setdefault("content-type", "application/json")
        data = json.dumps(body) if body is not None else None
        async with self.http.request(method, path, data=data, headers=headers) as answer:
            text = await answer.read()
            return answer.status, json.loads(text) if text.startswith(b"{") else text

    async def token(self, who: str) -> str:
        """``ann`` or ``ann+group+group``."""
        if who not in self.tokens:
            name, *groups = who.split("+")
            self.tokens[who], _ = await self.users.token(name, groups=groups)
        return self.tokens[who]

    async def may(self, who: str, verb: str, resource: str, namespace: str = "", group: str = "") -> bool:
        attributes = {"verb": verb, "resource": resource, "namespace": namespace, "group": group}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        code, answer = await self(who, "POST", path, {"spec": {"resourceAttributes": attributes}})
        assert code == 201
        return bool(answer["status"]["allowed"])


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    stop = asyncio.Event()
    async with SqliteStore.open(tmp_path / "store") as store:
        users = Users(store.private("users"), lambda: datetime.now(UTC))
        objects = Objects(store)
        await objects.start()
        app = create_app(objects, authenticate=authenticator(lambda: "cluster.local", users), stop=stop)
        path = tmp_path / "api.sock"
        async with (
            serve_api(app, socket_path=path, stop=stop),
            aiohttp.ClientSession("http://weft", connector=aiohttp.UnixConnector(str(path))) as http,
        ):
            made = Api(http, users, {})
            assert (await made("", "POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}}))[0] == 201
            await made("", "POST", SECRETS, {"metadata": {"name": "card"}, "stringData": {"pin": "1234"}})
            yield made


def route(name: str = "a") -> dict[str, Any]:
    destination = {"destination": {"host": "a"}}
    return {"metadata": {"name": name}, "spec": {"hosts": ["a"], "http": [{"route": [destination]}]}}


def role(name: str, *rules: tuple[str, str, str], **more: Any) -> dict[str, Any]:
    wires = [
        {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split()}
        for verbs, group, resources in rules
    ]
    return {"metadata": {"name": name, **more.pop("metadata", {})}, "rules": wires, **more}


def binding(name: str, kind: str, to: str, *users: str) -> dict[str, Any]:
    subjects = [
        {"kind": "Group", "name": one[1:]} if one.startswith("@") else {"kind": "User", "name": one}
        for one in users
    ]
    return {"metadata": {"name": name}, "roleRef": {"kind": kind, "name": to}, "subjects": subjects}


async def give(api: Api, to: str, user: str, namespace: str = "shop") -> None:
    """A built-in role in a namespace, or everywhere."""
    name = f"{user}-{to}".replace("@", "g-").replace(":", "-")
    path = f"{RBAC}/namespaces/{namespace}/rolebindings" if namespace else f"{RBAC}/clusterrolebindings"
    code, answer = await api("", "POST", path, binding(name, "ClusterRole", to, user))
    assert code == 201, answer


async def test_who_is_bound_to_nothing_sees_what_the_api_has_and_no_more(api: Api) -> None:
    for path in ("/api", "/apis", "/openapi/v3", "/version"):
        assert (await api("ann", "GET", path))[0] == 200, path
    for path in (ROUTES, SECRETS, "/api/v1/namespaces", "/api/v1/events", f"{RBAC}/clusterroles"):
        code, answer = await api("ann", "GET", path)
        assert (code, answer["reason"]) == (403, "Forbidden"), path
    _, answer = await api("ann", "GET", ROUTES)
    assert answer["message"] == (
        'virtualservices.networking.istio.io is forbidden: User "ann" cannot list resource '
        '"virtualservices" in API group "networking.istio.io" in the namespace "shop"'
    )


async def test_every_verb_is_asked_for_by_itself(api: Api) -> None:
    """One role a verb: what it is called in Kubernetes opens its request, and no other one."""
    await api("", "POST", ROUTES, route())
    one, many = f"{ROUTES}/a", ROUTES
    requests: dict[str, list[tuple[str, str, Any, str]]] = {
        "get": [("GET", one, None, "")],
        "list": [("GET", many, None, ""), ("GET", f"{many}?limit=1", None, "")],
        "watch": [("GET", f"{many}?watch=1&timeoutSeconds=0", None, "")],
        "create": [("POST", f"{many}?dryRun=All", route("b"), "application/json")],
        "update": [("PUT", f"{one}?dryRun=All", route(), "application/json")],
        "patch": [("PATCH", f"{one}?dryRun=All", {}, MERGE)],
        "delete": [("DELETE", f"{one}?dryRun=All", None, "")],
        "deletecollection": [("DELETE", f"{many}?dryRun=All", None, "")],
    }
    status = {"get": "GET", "patch": "PATCH", "update": "PUT"}
    for verb in requests:
        body = role(verb, (verb, "networking.istio.io", "virtualservices"))
        await api("", "POST", f"{RBAC}/namespaces/shop/roles", body)
        await api("", "POST", f"{RBAC}/namespaces/shop/rolebindings", binding(verb, "Role", verb, verb))
    for holder in requests:
        for verb, wanted in requests.items():
            for method, path, body, form in wanted:
                headers = {"content_type": form} if form else {}
                code, answer = await api(holder, method, path, body, **headers)
                assert (code == 403) is (holder != verb), (holder, method, path, answer)
                assert holder != verb or code in {200, 201}, answer
        # A rule about the object says nothing of its status.
        if holder in status:
            headers = {"content_type": MERGE} if holder == "patch" else {}
            sent = None if holder == "get" else route()
            assert (await api(holder, status[holder], f"{one}/status", sent, **headers))[0] == 403
    assert (await api("", "GET", one))[0] == 200


async def test_names_narrow_a_rule(api: Api) -> None:
    for name in ("a", "b"):
        await api("", "POST", ROUTES, route(name))
    body = role("named", ("get list watch patch", "networking.istio.io", "virtualservices"))
    body["rules"][0]["resourceNames"] = ["a"]
    await api("", "POST", f"{RBAC}/namespaces/shop/roles", body)
    await api("", "POST", f"{RBAC}/namespaces/shop/rolebindings", binding("named", "Role", "named", "ann"))
    assert (await api("ann", "GET", f"{ROUTES}/a"))[0] == 200
    assert (await api("ann", "GET", f"{ROUTES}/b"))[0] == 403
    assert (await api("ann", "GET", ROUTES))[0] == 403
    code, listed = await api("ann", "GET", f"{ROUTES}?fieldSelector=metadata.name%3Da")
    assert code == 200
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]
    assert (await api("ann", "GET", f"{ROUTES}?fieldSelector=metadata.name!%3Db"))[0] == 403


async def test_view_edit_and_admin_within_a_namespace(api: Api) -> None:
    for name in ("view", "edit", "admin"):
        await give(api, name, name)
    istio = "networking.istio.io"
    table = [
        # verb, resource, group: who may
        ("get", "virtualservices", istio, {"view", "edit", "admin"}),
        ("create", "virtualservices", istio, {"edit", "admin"}),
        ("deletecollection", "virtualservices", istio, {"edit", "admin"}),
        ("update", "virtualservices/status", istio, set()),
        ("get", "secrets", "", {"edit", "admin"}),
        ("list", "secrets", "", {"edit", "admin"}),
        ("watch", "secrets", "", {"edit", "admin"}),
        ("get", "proxies", "weft.dev", {"view", "edit", "admin"}),
        ("get", "rolebindings", "rbac.authorization.k8s.io", {"admin"}),
        ("create", "rolebindings", "rbac.authorization.k8s.io", {"admin"}),
        ("create", "tokens", "weft.dev", set()),
        ("create", "users", "weft.dev", set()),
        ("impersonate", "users", "", set()),
    ]
    for verb, resource, group, allowed in table:
        for who in ("view", "edit", "admin"):
            assert await api.may(who, verb, resource, "shop", group) is (who in allowed), (
                who,
                verb,
                resource,
            )
            assert not await api.may(who, verb, resource, "other", group)
            assert not await api.may(who, verb, resource, "", group)
    assert await api.may("", "anything", "whatever", "", "at.all")


async def test_secrets_are_seen_by_no_door_by_who_may_not(api: Api) -> None:
    await give(api, "view", "ann")
    await give(api, "view", "@readers", "")
    wire = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "card", "namespace": "shop"}}
    apply = {"objects": [{**wire, "data": {}}], "whole": True, "dryRun": True}
    for who in ("ann", "eve+readers"):
        for method, path, body in (
            ("GET", f"{SECRETS}/card", None),
            ("GET", SECRETS, None),
            ("GET", "/api/v1/secrets", None),
            ("GET", f"{SECRETS}?watch=1&timeoutSeconds=0", None),
            ("GET", f"{SECRETS}?fieldSelector=metadata.name%3Dcard", None),
            ("PATCH", f"{SECRETS}/card?dryRun=All", {}),
            ("PUT", f"{SECRETS}/card?dryRun=All", wire),
            ("DELETE", f"{SECRETS}/card?dryRun=All", None),
            ("DELETE", f"{SECRETS}?dryRun=All", None),
            ("POST", "/weft/v1/apply", apply),
            ("POST", "/weft/v1/apply", {**apply, "delete": True}),
        ):
            headers = {"content_type": MERGE} if method == "PATCH" else {}
            code, answer = await api(who, method, path, body, **headers)
            assert code == 403, (method, path, answer)
            assert "1234" not in str(answer)
            assert "MTIzNA" not in str(answer)
    table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    assert (await api("ann", "GET", SECRETS, **table))[0] == 403


async def test_apply_asks_for_each_object(api: Api) -> None:
    await give(api, "edit", "ann")
    mine = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", **route()}
    objects = [{**mine, "metadata": {"name": name, "namespace": "shop"}} for name in ("a", "b")]
    assert (await api("ann", "POST", "/weft/v1/apply", {"objects": objects}))[0] == 200
    assert (await api("ann", "POST", "/weft/v1/apply", {"objects": objects}))[0] == 200
    theirs = {**mine, "metadata": {"name": "a", "namespace": "default"}}
    more = {**mine, "metadata": {"name": "c", "namespace": "shop"}}
    code, answer = await api("ann", "POST", "/weft/v1/apply", {"objects": [more, theirs]})
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert (await api("", "GET", f"{ROUTES}/c"))[0] == 404
    code, _ = await api("ann", "POST", "/weft/v1/apply", {"objects": [theirs], "delete": True})
    assert code == 403
    code, _ = await api("ann", "POST", "/weft/v1/apply", {"objects": [objects[0]], "delete": True})
    assert code == 200


async def test_a_namespace_comes_into_being_for_those_who_may_make_one(api: Api) -> None:
    await give(api, "edit", "ann", "")
    path = ROUTES.replace("/shop/", "/new/")
    code, answer = await api("ann", "POST", path, route())
    assert (code, answer["message"]) == (404, 'namespaces "new" not found')
    wire = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", **route()}
    assert (await api("ann", "POST", "/weft/v1/apply", {"objects": [wire], "namespace": "new"}))[0] == 404
    assert (await api("", "POST", path, route()))[0] == 201


async def test_nobody_gives_more_than_they_have(api: Api) -> None:
    await give(api, "admin", "ann")
    roles, bindings = f"{RBAC}/namespaces/shop/roles", f"{RBAC}/namespaces/shop/rolebindings"
    code, _ = await api("ann", "POST", roles, role("own", ("get", "networking.istio.io", "virtualservices")))
    assert code == 201
    code, answer = await api("ann", "POST", roles, role("more", ("create", "weft.dev", "tokens")))
    assert code == 403
    assert "attempting to grant RBAC permissions not currently held" in answer["message"]
    assert '{APIGroups:["weft.dev"], Resources:["tokens"], Verbs:["create"]}' in answer["message"]
    # Neither by a change of a role that is there, nor in one transaction with its binding.
    patch = role("own", ("*", "*", "*"))
    assert (await api("ann", "PATCH", f"{roles}/own", patch, content_type=MERGE))[0] == 403
    assert (await api("ann", "PUT", f"{roles}/own", patch))[0] == 403
    assert (await api("ann", "PUT", f"{roles}/own?dryRun=All", patch))[0] == 403
    wires = [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", **patch},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            **binding("all", "Role", "own", "ann"),
        },
    ]
    assert (await api("ann", "POST", "/weft/v1/apply", {"objects": wires, "namespace": "shop"}))[0] == 403
    # Bindings to what is more, and to what is not there.
    assert (await api("ann", "POST", bindings, binding("x", "ClusterRole", "cluster-admin", "ann")))[0] == 403
    assert (await api("ann", "POST", bindings, binding("x", "ClusterRole", "nothing", "ann")))[0] == 404
    assert (await api("ann", "POST", bindings, binding("x", "ClusterRole", "edit", "bob")))[0] == 201
    everywhere = binding("x", "ClusterRole", "view", "bob")
    assert (await api("ann", "POST", f"{RBAC}/clusterrolebindings", everywhere))[0] == 403


async def test_bind_and_escalate_let_somebody_give_more(api: Api) -> None:
    await give(api, "admin", "ann")
    roles, bindings = f"{RBAC}/namespaces/shop/roles", f"{RBAC}/namespaces/shop/rolebindings"
    group = "rbac.authorization.k8s.io"
    special = role("special", ("bind", group, "clusterroles"), ("escalate", group, "roles"))
    special["rules"][0]["resourceNames"] = ["cluster-admin"]
    assert (await api("", "POST", roles, special))[0] == 201
    assert (await api("", "POST", bindings, binding("special", "Role", "special", "ann")))[0] == 201
    assert (await api("ann", "POST", roles, role("more", ("create", "weft.dev", "tokens"))))[0] == 201
    assert (await api("ann", "POST", bindings, binding("x", "ClusterRole", "cluster-admin", "bob")))[0] == 201
    assert await api.may("bob", "create", "tokens", "shop", "weft.dev")
    assert not await api.may("bob", "create", "tokens", "", "weft.dev")


async def test_aggregation(api: Api) -> None:
    await give(api, "view", "ann")
    await give(api, "edit", "bob")
    labels = {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}
    more = role("more", ("get", "example.com", "things"), metadata=labels)
    assert not await api.may("ann", "get", "things", "shop", "example.com")
    assert (await api("", "POST", f"{RBAC}/clusterroles", more))[0] == 201
    assert await api.may("ann", "get", "things", "shop", "example.com")
    assert not await api.may("bob", "get", "things", "shop", "example.com")
    selector = {"clusterRoleSelectors": [{"matchExpressions": [{"key": "team", "operator": "Exists"}]}]}
    await api("", "POST", f"{RBAC}/clusterroles", role("all", aggregationRule=selector))
    part = role("part", ("get", "example.com", "parts"), metadata={"labels": {"team": "x"}})
    await api("", "POST", f"{RBAC}/clusterroles", part)
    await give(api, "all", "eve")
    assert await api.may("eve", "get", "parts", "shop", "example.com")
    await api("", "DELETE", f"{RBAC}/clusterroles/part")
    assert not await api.may("eve", "get", "parts", "shop", "example.com")
    # It can gather anything: only who has everything may write one.
    await api("", "POST", f"{RBAC}/clusterroles", role("writer", ("*", "rbac.authorization.k8s.io", "*")))
    await api("", "POST", f"{RBAC}/clusterrolebindings", binding("w", "ClusterRole", "writer", "mallory"))
    code, answer = await api("mallory", "POST", f"{RBAC}/clusterroles", role("y", aggregationRule=selector))
    # ``*`` among the verbs includes escalate, as in Kubernetes.
    assert code == 201, answer
    verbs = "get list create update patch"
    await api(
        "", "PUT", f"{RBAC}/clusterroles/writer", role("writer", (verbs, "rbac.authorization.k8s.io", "*"))
    )
    code, answer = await api("mallory", "POST", f"{RBAC}/clusterroles", role("z", aggregationRule=selector))
    assert code == 403
    assert "cluster-admin privileges" in answer["message"]


async def test_what_is_built_in_stays(api: Api) -> None:
    code, listed = await api("", "GET", f"{RBAC}/clusterroles")
    names = {item["metadata"]["name"] for item in listed["items"]}
    assert code == 200
    assert {"cluster-admin", "admin", "edit", "view", "system:discovery"} <= names
    for path in ("clusterroles/view", "clusterrolebindings/cluster-admin", "clusterroles/system:discovery"):
        assert (await api("", "DELETE", f"{RBAC}/{path}"))[0] == 403
        patch = {"metadata": {"labels": {"a": "b"}}}
        assert (await api("", "PATCH", f"{RBAC}/{path}", patch, content_type=MERGE))[0] == 403
    assert (await api("", "DELETE", f"{RBAC}/clusterroles"))[0] == 403
    assert (await api("", "GET", f"{RBAC}/clusterroles/view"))[0] == 200


async def test_subjects_are_users_groups_and_service_accounts(api: Api) -> None:
    body = binding("robots", "ClusterRole", "view", "@team")
    body["subjects"].append({"kind": "ServiceAccount", "name": "robot", "namespace": "ci"})
    body["subjects"].append({"kind": "ServiceAccount", "name": "own"})
    assert (await api("", "POST", f"{RBAC}/namespaces/shop/rolebindings", body))[0] == 201
    for who, allowed in (
        ("ann+team", True),
        ("ann2+teams", False),
        ("team", False),
        ("system:serviceaccount:ci:robot", True),
        ("system:serviceaccount:shop:robot", False),
        ("system:serviceaccount:shop:own", True),
        ("robot", False),
    ):
        assert await api.may(who, "get", "virtualservices", "shop", "networking.istio.io") is allowed, who


async def test_speaking_for_others(api: Api) -> None:
    await give(api, "view", "bob")
    ask = {"impersonate_user": "bob"}
    assert (await api("", "GET", ROUTES, **ask))[0] == 200
    assert (await api("", "GET", SECRETS, **ask))[0] == 403
    assert (await api("ann", "GET", ROUTES, **ask))[0] == 403
    assert (await api("bob", "GET", SECRETS, impersonate_user="x", impersonate_group="system:masters"))[
        0
    ] == 403
    assert (await api("", "GET", ROUTES, impersonate_uid="1", **ask))[0] == 400
    assert (await api("", "GET", ROUTES, impersonate_group="a"))[0] == 400
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    _, who = await api("", "POST", path, {}, impersonate_user="system:serviceaccount:shop:x")
    assert who["status"]["userInfo"] == {
        "username": "system:serviceaccount:shop:x",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
    }


async def test_reviews_of_others(api: Api) -> None:
    await give(api, "admin", "ann")
    attributes = {"verb": "get", "resource": "secrets", "namespace": "shop"}
    body = {"spec": {"user": "ann", "resourceAttributes": attributes}}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    code, answer = await api("", "POST", path, body)
    assert (code, answer["status"]["allowed"]) == (201, True)
    assert 'RoleBinding "ann-admin/shop"' in answer["status"]["reason"]
    assert (await api("ann", "POST", path, body))[0] == 403
    local = "/apis/authorization.k8s.io/v1/namespaces/{}/localsubjectaccessreviews"
    assert (await api("ann", "POST", local.format("shop"), body))[1]["status"]["allowed"] is True
    assert (await api("ann", "POST", local.format("other"), body))[0] == 403
    assert (await api("", "POST", local.format("other"), body))[0] == 400


@pytest.mark.parametrize("how", ["the credential", "the role"])
async def test_a_watch_ends_with_the_right_to_it(api: Api, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr("weft.control.api.watching.BOOKMARK_SECONDS", 0.1)
    await give(api, "view", "ann")
    headers = {"authorization": f"Bearer {await api.token('ann')}"}
    async with api.http.get(f"{ROUTES}?watch=1&allowWatchBookmarks=true", headers=headers) as answer:
        assert answer.status == 200
        async with asyncio.timeout(30):
            assert b"BOOKMARK" in await answer.content.readline()
            if how == "the role":
                await api("", "DELETE", f"{RBAC}/namespaces/shop/rolebindings/ann-view")
            else:
                await api.users.revoke("ann")
            while await answer.content.readline():
                pass


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
async def test_kubectl_knows_what_it_may(api: Api, tmp_path: Path) -> None:
    """kubectl over HTTP: a little proxy in front of the socket stands for TLS, which is no matter here."""
    await give(api, "view", "ann")
    connector = api.http.connector
    assert isinstance(connector, aiohttp.UnixConnector)
    path = connector.path

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65536):
            writer.write(part)
        writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_unix_connection(path)
        await asyncio.gather(carry(reader, inner[1]), carry(inner[0], writer))

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    # kubectl sends no token without TLS: ann is whom the socket's owner speaks for.
    base = ["kubectl", f"--server=http://127.0.0.1:{port}", f"--cache-dir={tmp_path}", "--as=ann"]

    async def kubectl(*words: str) -> tuple[int, str]:
        environ = {**os.environ, "KUBECONFIG": "/dev/null"}
        done = await asyncio.to_thread(
            subprocess.run, [*base, *words], capture_output=True, text=True, env=environ
        )
        return done.returncode, done.stdout + done.stderr

    async with server:
        for words, yes in (
            ("get virtualservices -n shop", True),
            ("create virtualservices -n shop", False),
            ("get secrets -n shop", False),
            ("get virtualservices -n default", False),
            ("get /apis", True),
            ("get /metrics", False),
        ):
            code, text = await kubectl("auth", "can-i", *words.split())
            assert (code == 0) is yes, text
            assert text.strip().endswith("yes" if yes else "no"), text
        code, text = await kubectl("auth", "can-i", "--list", "-n", "shop")
        assert code == 0, text
        assert "virtualservices.networking.istio.io" in text
        assert "secrets" not in text
        code, text = await kubectl("get", "secret", "card", "-n", "shop", "-o", "yaml")
        assert code == 1
        assert 'User "ann" cannot get resource "secrets"' in text
        base.pop()
        rules = ["--verb=get", "--resource=virtualservices.networking.istio.io", "-n", "shop"]
        assert (await kubectl("create", "role", "reader", *rules))[0] == 0
        given = ["--role=reader", "--user=bob", "--group=team", "-n", "shop"]
        assert (await kubectl("create", "rolebinding", "readers", *given))[0] == 0
        code, text = await kubectl("get", "rolebindings", "-n", "shop", "-o", "wide")
        assert "reader" in text, text
        code, text = await kubectl("describe", "clusterrole", "view")
        assert code == 0, text
    assert await api.may("bob", "get", "virtualservices", "shop", "networking.istio.io")
