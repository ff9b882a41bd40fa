"""Access rules on the way of a request or a connection: which policy decides, and what a dry run comes to.

What Envoy's filter leaves behind for others (dynamic metadata) is left behind here too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from weft.analysis import match_tree, rbac
from weft.analysis.explain.answer import Action, Answer
from weft.analysis.explain.origins import Cause, Origins
from weft.analysis.explain.passage import Passage, Reply
from weft.model.resource import Key
from weft.names import DRY_RUN_ALLOW, DRY_RUN_DENY, read_authorization_rule, read_consulted_provider

if TYPE_CHECKING:
    from weft.analysis.explain.configuration import Configuration
    from weft.analysis.match import Scene
    from weft.analysis.match_tree import Opened

HTTP: Final = "envoy.filters.http.rbac"
NETWORK: Final = "envoy.filters.network.rbac"
_KIND: Final = "security.istio.io/AuthorizationPolicy"
_ALLOW, _LOG = 0, 2  # config.rbac.v3.RBAC.Action
_REFUSAL: Final = re.compile(r"rbac_access_denied_matched_policy\[(.*)\]")
_EXTERNAL: Final = re.compile(r"ext_authz_(denied|error|close)")
_RESULTS: Final = {"allowed": "allow", "denied": "deny"}
_DRY_RUNS: Final = frozenset({DRY_RUN_ALLOW, DRY_RUN_DENY, ""})


def pass_request(passage: Passage, base: Any, overrides: list[Any]) -> Reply | None:
    """Evaluate a filter's rules; a refusal when they do not let the request pass."""
    config = base
    if overrides:
        if not overrides[-1].HasField("rbac"):
            return None
        config = overrides[-1].rbac
    refusal = judge(config, passage.scene, passage.answer, passage.origins, passage.open, HTTP)
    if refusal is None:
        return None
    return Reply(status=403, detail=refusal, step="authz", action=Action.DENY)


def judge(
    config: Any, scene: Scene, answer: Answer, origins: Origins, opened: Opened, filter_name: str
) -> str | None:
    """What is told of a refusal; None when the rules let it pass."""
    known = scene.metadata.setdefault(filter_name, {})
    if config.HasField("shadow_rules") or config.HasField("shadow_matcher"):
        allowed, name = _decision(config, "shadow_", scene, opened)
        prefix = config.shadow_rules_stat_prefix
        _leave(known, f"{prefix}shadow_", allowed, name)
        if prefix in _DRY_RUNS:
            _tried_out(allowed, name, answer, origins)
    if not (config.HasField("rules") or config.HasField("matcher")):
        return None
    allowed, name = _decision(config, "", scene, opened)
    _leave(known, "enforced_", allowed, name)
    title, cause = named(name, origins)
    if config.rules.action == _LOG:
        if name:
            answer.say("authz", f"marked for the audit by {title}", cause)
        return None
    if allowed:
        if cause is not None:
            _decided(name, answer)
            answer.say("authz", f"allowed by {title}", cause)
        return None
    answer.decision, answer.policy, answer.policy_rule = "deny", None, None
    if name:
        _decided(name, answer)
        refusal = f"denied by {title}"
    else:
        refusal = _by_nobody(config)
    answer.say("authz", refusal, cause)
    return refusal


def logged(line: Mapping[str, Any], audits: Collection[str] = ()) -> dict[str, Any]:
    """What a line of an access log says of policies, in the shape of an answer's ``authz``.

    ``audits``: rules that only mark what they fit, as ``audits_of`` finds them: they decide nothing.
    """
    details = f"{line.get('response_code_details') or line.get('connection_termination_details') or ''}"
    refusal = _REFUSAL.search(details)
    name = refusal[1] if refusal is not None else line.get("authz_policy")
    if not isinstance(name, str) or name in {*audits, "none"}:
        name = ""
    if refusal is None and read_authorization_rule(name) is None:
        name = ""  # another filter's
    policy, rule = parts(name)
    consulted = line.get("consulted_policy")
    provider = read_consulted_provider(consulted) if isinstance(consulted, str) else None
    if provider is not None and refusal is None:
        policy, rule = parts(str(consulted))
    tried = [
        (_RESULTS[result], line.get(f"dry_run_{action}_policy"))
        for action in ("deny", "allow")
        if (result := line.get(f"dry_run_{action}_result")) in _RESULTS
    ]
    word, by = min(tried, key=lambda one: one[0] != "deny", default=(None, None))
    dry_policy, dry_rule = parts(by if isinstance(by, str) and by != "-" else "")
    decided = refusal is not None or line.get("authz_result") in _RESULTS
    decision = ("deny" if refusal is not None else "allow") if decided else None
    if refusal is None and _EXTERNAL.search(details):
        decision = "deny"
    elif refusal is None and provider is not None:
        decision = "external"
    return {
        "decision": decision,
        "policy": policy,
        "rule": rule,
        "provider": provider if refusal is None else None,
        "dryRun": word,
        "dryRunPolicy": dry_policy,
        "dryRunRule": dry_rule,
    }


def audits_of(configuration: Configuration) -> frozenset[str]:
    """The names of rules that only mark."""
    opened, found = configuration.decoded.open, set[str]()
    for listener in configuration.listeners.values():
        for chain in listener.filter_chains:
            for config in map(opened, _packed(chain.filters)):
                for one in (config, *map(opened, _packed(getattr(config, "http_filters", ())))):
                    rules: Any = getattr(one, "rules", None)
                    if rules is not None and getattr(rules, "action", None) == _LOG:
                        found.update(rules.policies)
    return frozenset(found)


def _packed(rows: Iterable[Any]) -> Iterator[Any]:
    return (row.typed_config for row in rows if row.HasField("typed_config"))


def _leave(known: dict[str, Any], prefix: str, allowed: bool, name: str) -> None:
    known[f"{prefix}engine_result"] = "allowed" if allowed else "denied"
    if name:
        known[f"{prefix}effective_policy_id"] = name


def _tried_out(allowed: bool, name: str, answer: Answer, origins: Origins) -> None:
    """Of several dry runs the first that refuses counts, as it would if all were in force."""
    title, cause = named(name, origins)
    word = "allow" if allowed else "deny"
    answer.say("dryRun", f"would {word}{f', by {title}' if name else ', by no policy'}", cause)
    if answer.dry_run == "deny":
        return
    if answer.dry_run is None or name or not allowed:
        answer.dry_run = word
        answer.dry_run_policy, answer.dry_run_rule = parts(name)


def _decided(name: str, answer: Answer) -> None:
    answer.policy, answer.policy_rule = parts(name)


def parts(name: str) -> tuple[str | None, int | None]:
    """The policy's ``namespace/name`` and its rule; what is named otherwise is told as it is."""
    found = read_authorization_rule(name)
    if found is None:
        return name or None, None
    return f"{found.namespace}/{found.name}", found.rule


def named(name: str, origins: Origins) -> tuple[str, Cause | None]:
    """What a rule is called for people, and where it stands."""
    found = read_authorization_rule(name)
    if found is None:
        return name, None
    key = Key(_KIND, found.namespace, found.name)
    cause = origins.of(key, ("spec", "rules", found.rule))
    return f"{cause} rule {found.rule}", cause


def _by_nobody(config: Any) -> str:
    """No ALLOW policy fits: which ones there are."""
    names = dict.fromkeys(parts(name)[0] or name for name in sorted(config.rules.policies))
    if not names:
        return "denied: policies of action ALLOW are in force, and none has a rule for this"
    return f"denied: no rule of {', '.join(names)} allows it"


def _decision(config: Any, prefix: str, scene: Scene, opened: Opened) -> tuple[bool, str]:
    """Whether it may pass, and by which policy: rules, or a matcher whose actions are policies."""
    if config.HasField(f"{prefix}rules"):
        return rbac.decide(getattr(config, f"{prefix}rules"), scene)
    action = match_tree.decide(getattr(config, f"{prefix}matcher"), scene, opened)
    made = opened(action.typed_config) if action is not None else None
    if made is None:
        return False, ""
    return made.action == _ALLOW, made.name
