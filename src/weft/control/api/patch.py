"""The three kinds of patch. Pure: each returns a new object and leaves its inputs alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from weft.control.api.status import ApiError, bad_request

Wire = dict[str, Any]

# Lists that strategic merge patch merges element by element, by path: the merge key, or None for lists
# of plain values (patchStrategy and patchMergeKey in k8s.io/api; OpenAPI's x-kubernetes-patch-merge-key).
_EVERYWHERE: Final[Mapping[tuple[str, ...], str | None]] = {
    ("metadata", "ownerReferences"): "uid",
    ("metadata", "finalizers"): None,
}
_MERGE_KEYS: Final[Mapping[str, Mapping[tuple[str, ...], str | None]]] = {
    "Service": {("spec", "ports"): "port", ("status", "conditions"): "type"},
    "ServiceAccount": {("secrets",): "name", ("imagePullSecrets",): "name"},
    "Namespace": {("status", "conditions"): "type"},
    "Secret": {},
    "ConfigMap": {},
    "Endpoints": {},
    "EndpointSlice": {},
    # Rules and subjects are whole values.
    "Role": {},
    "ClusterRole": {},
    "RoleBinding": {},
    "ClusterRoleBinding": {},
}


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902.

    Raises:
        ApiError: 400 for a malformed patch, 422 for one that does not fit the object.
    """
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    result = copy.deepcopy(target)
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise bad_request("an operation of a JSON patch has at least op and path")
        result = _operate(result, operation)
    return result


def _operate(target: Any, operation: Mapping[str, Any]) -> Any:
    path = _pointer(operation["path"])
    match operation.get("op"):
        case "add" if "value" in operation:
            return _add(target, path, copy.deepcopy(operation["value"]))
        case "remove":
            return _remove(target, path)[0]
        case "replace" if "value" in operation:
            if not path:
                return copy.deepcopy(operation["value"])
            return _add(_remove(target, path)[0], path, copy.deepcopy(operation["value"]))
        case "move" | "copy" if isinstance(operation.get("from"), str):
            source = _pointer(operation["from"])
            value = copy.deepcopy(_look(target, source))
            if operation["op"] == "move":
                target = _remove(target, source)[0]
            return _add(target, path, value)
        case "test" if "value" in operation:
            found = _look(target, path)
            if found != operation["value"] or type(found) is not type(operation["value"]):
                raise _unfit(f"testing value {operation['path']} failed")
            return target
    raise bad_request(f"{dict(operation)!r} is no operation of a JSON patch")


def _unfit(message: str) -> ApiError:
    return ApiError(422, f"the patch does not fit the object: {message}")


def _pointer(text: str) -> list[str]:
    if text == "":
        return []
    if not text.startswith("/"):
        raise bad_request(f"{text!r} is no JSON pointer: it starts with '/'")
    return [step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/")]


def _index(items: list[Any], step: str, *, end: bool) -> int:
    if end and step == "-":
        return len(items)
    if not step.isascii() or not step.isdigit() or (len(step) > 1 and step[0] == "0"):
        raise _unfit(f"{step!r} is no index")
    if int(step) >= len(items) + end:
        raise _unfit(f"index {step} is out of range")
    return int(step)


def _look(target: Any, path: list[str]) -> Any:
    for step in path:
        if isinstance(target, list):
            target = target[_index(target, step, end=False)]
        elif isinstance(target, dict) and step in target:
            target = target[step]
        else:
            raise _unfit(f"there is no {'/' + '/'.join(path)}")
    return target


def _add(target: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _look(target, path[:-1])
    if isinstance(parent, list):
        parent.insert(_index(parent, path[-1], end=True), value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise _unfit(f"{'/' + '/'.join(path[:-1])} is neither object nor list")
    return target


def _remove(target: Any, path: list[str]) -> tuple[Any, Any]:
    if not path:
        raise _unfit("the whole object cannot be removed")
    value = _look(target, path)
    parent = _look(target, path[:-1])
    if isinstance(parent, list):
        del parent[_index(parent, path[-1], end=False)]
    else:
        del parent[path[-1]]
    return target, value


def merge_keys(kind: str) -> Mapping[tuple[str, ...], str | None]:
    """The lists of a core kind that are merged, with their keys (None: lists of plain values)."""
    return {**_EVERYWHERE, **_MERGE_KEYS.get(kind, {})}


def strategic_merge(kind: str, target: Wire, patch: Wire) -> Wire:
    """Kubernetes' strategic merge patch, for Kubernetes' own kinds.

    Raises:
        ApiError: 415 for a kind without merge keys, 400 for a malformed patch.
    """
    if kind not in _MERGE_KEYS:
        raise ApiError(
            415,
            f"strategic merge patch is not supported for {kind}:"
            " send application/merge-patch+json or application/json-patch+json",
        )
    return _merge_object(target, patch, (), merge_keys(kind))


_Keys = Mapping[tuple[str, ...], str | None]


def _merge_object(target: Wire, patch: Wire, path: tuple[str, ...], keys: _Keys) -> Wire:
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    result = copy.deepcopy(target)
    if isinstance(kept := patch.get("$retainKeys"), list):
        result = {name: value for name, value in result.items() if name in kept}
    for name, value in patch.items():
        if name.startswith("$"):
            _merge_directive(result, name, value, path, keys)
        elif value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            if value.get("$patch") == "delete":
                result.pop(name, None)
                continue
            old = result.get(name)
            result[name] = _merge_object(old if isinstance(old, dict) else {}, value, (*path, name), keys)
        elif isinstance(value, list) and (*path, name) in keys:
            result[name] = _merge_list(result.get(name) or [], value, keys[*path, name], (*path, name), keys)
        else:
            result[name] = copy.deepcopy(value)
    for name, value in patch.items():
        if name.startswith("$setElementOrder/"):
            _order(result, name.partition("/")[2], value, path, keys)
    return result


def _merge_directive(result: Wire, name: str, value: Any, path: tuple[str, ...], keys: _Keys) -> None:
    directive, _, field = name.partition("/")
    if directive == "$deleteFromPrimitiveList" and isinstance(value, list):
        result[field] = [item for item in result.get(field) or [] if item not in value]
    elif directive not in {"$setElementOrder", "$retainKeys", "$patch"}:
        raise bad_request(f"{name} is no directive of a strategic merge patch")


def _merge_list(old: list[Any], new: list[Any], key: str | None, path: tuple[str, ...], keys: _Keys) -> Any:
    if key is None:
        return [*old, *(item for item in new if item not in old)]
    if any(not isinstance(item, dict) for item in new):
        raise bad_request(f"{'.'.join(path)} is a list of objects")
    if any(item.get("$patch") == "replace" for item in new):
        return [item for item in new if "$patch" not in item]
    result = [copy.deepcopy(item) for item in old]
    for item in new:
        if key not in item:
            raise bad_request(f"an element of {'.'.join(path)} in the patch lacks its key {key!r}")
        at = next((n for n, there in enumerate(result) if there.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(_merge_object({}, item, path, keys))
        else:
            result[at] = _merge_object(result[at], item, path, keys)
    return result


def _order(result: Wire, field: str, order: Any, path: tuple[str, ...], keys: _Keys) -> None:
    items = result.get(field)
    if not isinstance(items, list) or not isinstance(order, list):
        return
    key = keys.get((*path, field))
    wanted = [entry.get(key) if key and isinstance(entry, dict) else entry for entry in order]

    def place(item: Any) -> int:
        value = item.get(key) if key and isinstance(item, dict) else item
        return wanted.index(value) if value in wanted else len(wanted)

    items.sort(key=place)


def three_way(last: Any, live: Any, desired: Any) -> Any:
    """kubectl's apply: what ``desired`` says, less what ``last`` said and it no longer says, else ``live``.

    Lists are whole values.
    """
    if not isinstance(desired, dict):
        return copy.deepcopy(desired)
    if not isinstance(live, dict):
        live = {}
    last = last if isinstance(last, dict) else {}
    result = {name: value for name, value in live.items() if name in desired or name not in last}
    for name, value in desired.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = three_way(last.get(name), live.get(name), value)
    return result
