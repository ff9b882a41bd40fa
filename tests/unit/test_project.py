"""The project itself: what belongs together is together, and nothing of one machine is in it."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from weft.model.catalog import KINDS, KindRow

ROOT: Final = Path(__file__).parents[2]

# Kinds that by themselves make nothing that an Envoy is sent.
SILENT: Final = frozenset(
    {
        "/ConfigMap",
        "/Namespace",
        "/ServiceAccount",
        "gateway.networking.k8s.io/GatewayClass",
        "networking.istio.io/ProxyConfig",
        "networking.istio.io/WorkloadGroup",
        "rbac.authorization.k8s.io/ClusterRole",
        "rbac.authorization.k8s.io/ClusterRoleBinding",
        "rbac.authorization.k8s.io/Role",
        "rbac.authorization.k8s.io/RoleBinding",
        "weft.dev/Workload",
    }
)
# Kinds that no golden case shows yet. The list may only shrink.
UNSHOWN: Final = frozenset[str]()


def shown() -> set[str]:
    """The kinds in the golden cases."""
    found: set[str] = set()
    for case in (ROOT / "tests" / "golden").glob("*/in.yaml"):
        for document in yaml.safe_load_all(case.read_text()):
            if document:
                found.add(f"{document['apiVersion'].rpartition('/')[0]}/{document['kind']}")
    return found


def test_every_kind_has_its_golden_case() -> None:
    known = {row.id for row in KINDS}
    assert known >= SILENT | UNSHOWN
    lacking = known - shown() - SILENT
    assert lacking <= UNSHOWN, "these kinds need a case in tests/golden"
    assert lacking == UNSHOWN, "these kinds have a case now: take them off the list"


@pytest.mark.parametrize("row", KINDS, ids=lambda row: row.id)
def test_every_kind_has_its_page(row: KindRow) -> None:
    page = ROOT / "docs" / "reference" / "resources" / f"{row.group or 'core'}-{row.kind.lower()}.md"
    assert row.kind in page.read_text()


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_is_of_this_project() -> None:
    declared = project()
    wanted = [*declared["project"]["dependencies"], *declared["dependency-groups"]["dev"]]
    for extra in declared["project"].get("optional-dependencies", {}).values():
        wanted += extra
    lock = (ROOT / "requirements.lock").read_text()
    pins = {canonical(name): Version(text) for name, text in re.findall(r"(?m)^([\w.-]+)==([^\s\\;]+)", lock)}
    for requirement in map(Requirement, wanted):
        pinned = pins.get(canonical(requirement.name))
        assert pinned is not None, f"{requirement.name} is not in requirements.lock: make lock"
        assert requirement.specifier.contains(pinned), f"{requirement} is locked to {pinned}: make lock"
    blocks = re.split(r"(?m)^(?=[\w.-]+==)", lock)[1:]
    direct = {
        canonical(block.partition("==")[0])
        for block in blocks
        if re.search(r"# .*weft \(pyproject|weft:", block)
    }
    assert direct == {canonical(Requirement(text).name) for text in wanted}
    assert all("--hash=sha256:" in block for block in blocks)


def tracked() -> list[Path]:
    """The files of the project; without git, as in an archive, there is nothing to look at."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    names = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], check=True, capture_output=True, text=True
    ).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def indexes() -> set[str]:
    """Hosts that this machine's package tools are told to use."""
    variables = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX")
    texts = [os.environ.get(name, "") for name in variables]
    for file in (Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf"):
        parser = configparser.RawConfigParser(strict=False)
        if parser.read(file):
            texts += [value for section in parser.values() for value in section.values()]
    hosts = {urlsplit(word).hostname or "" for text in texts for word in text.split() if "://" in word}
    return hosts - {"", "pypi.org", "localhost", "127.0.0.1"}


def test_nothing_of_this_machine_is_in_it() -> None:
    foreign = {str(ROOT), *indexes()}
    foreign |= {f"{folder}/" for folder in (Path.home(),) if len(folder.parts) > 2}
    for file in tracked():
        text = file.read_bytes()
        for word in foreign:
            assert word.encode() not in text, f"{file} names {word}"


def test_the_lock_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index" not in lock
    assert "--find-links" not in lock
