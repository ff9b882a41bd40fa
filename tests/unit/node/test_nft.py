from __future__ import annotations

import shutil
import subprocess

import pytest

from weft.node.capture import nft
from weft.node.capture.cgroup import Group

SHALLOW = Group("unified/weft/shop.web/app", 3)


def workload(name: str, base: int, *ports: int, level: int = 3) -> nft.HostWorkload:
    return nft.HostWorkload(
        name=name,
        app=Group(f"weft/{name}/app", level),
        proxy=Group(f"weft/{name}/proxy", 3),
        outbound_port=base,
        inbound_port=base + 1,
        dns_port=base + 2,
        ports=ports,
    )


def test_cgroups_of_different_depth_get_maps_of_their_own() -> None:
    rules = nft.host_rules("m", [workload("a", 15400, 80), workload("b", 15408, 81, level=5)])
    assert '  typeof socket cgroupv2 level 3 : tcp dport\n  elements = { "weft/a/app" : 15400 }' in rules
    assert '  typeof socket cgroupv2 level 5 : tcp dport\n  elements = { "weft/b/app" : 15408 }' in rules
    assert "redirect to :socket cgroupv2 level 5 map @out5" in rules


def test_the_order_of_workloads_does_not_matter() -> None:
    both = [workload("a", 15400, 80), workload("b", 15408, 81)]
    assert nft.host_rules("m", both) == nft.host_rules("m", reversed(both))


def test_guards_stand_in_a_table_of_their_own() -> None:
    rules = nft.host_rules("m", [workload("a", 15400, 80)])
    nat, guard = rules.split("table inet weft-m-guard {")
    assert "reject" not in nat
    assert "redirect" not in guard
    assert "tcp dport { 15400 } counter reject with tcp reset" in guard


def test_without_workloads_only_removal_is_left() -> None:
    assert nft.host_rules("m", []) == (
        "table inet weft-m\ndelete table inet weft-m\n"
        "table inet weft-m-guard\ndelete table inet weft-m-guard\n"
    )


def test_a_workload_without_ports_has_no_rule_for_an_empty_set() -> None:
    assert "{  }" not in nft.host_rules("m", [workload("job", 15400)])


def test_the_namespace_rules_know_the_sidecar_by_its_uid() -> None:
    rules = nft.namespace_rules(61001)
    assert "meta skuid 61001 return" in rules
    assert rules.index("ip saddr 127.0.0.6 return") < rules.index("oif lo ip daddr != 127.0.0.0/8")


@pytest.mark.root
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_nft_itself_accepts_the_namespace_rules() -> None:
    rules = nft.namespace_rules(61001)
    subprocess.run(["nft", "-c", "-f", "-"], input=rules, text=True, check=True)
