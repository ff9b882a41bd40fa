from __future__ import annotations

import os
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from weft.node.capture import cgroup
from weft.node.capture.cgroup import Group, Hierarchy

HYBRID = """\
25 30 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
27 25 0:24 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
PURE = "25 30 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
ELSEWHERE = "25 30 0:22 / /mnt/cgroup rw - cgroup2 cgroup2 rw\n"


def test_nft_names_a_group_by_its_path_and_depth_on_either_kind_of_mount() -> None:
    hybrid, pure = Hierarchy.find(HYBRID), Hierarchy.find(PURE)
    assert hybrid is not None
    assert pure is not None
    assert hybrid.group(Path("/sys/fs/cgroup/unified/weft/a/app")) == Group("unified/weft/a/app", 3)
    assert pure.group(Path("/sys/fs/cgroup/weft/a/app")) == Group("weft/a/app", 3)


def test_a_mount_that_nft_cannot_see_does_not_count() -> None:
    assert Hierarchy.find(ELSEWHERE) is None
    assert Hierarchy.find("") is None


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0 or Hierarchy.find() is None, reason="needs root and cgroup2")
def test_a_process_is_moved_found_and_removed_with_its_group() -> None:
    hierarchy = Hierarchy.find()
    assert hierarchy is not None
    root = hierarchy.mount / f"weft-test-{uuid.uuid4().hex[:8]}"
    app = cgroup.make(root / "web" / "app")
    sleeper = subprocess.Popen(["sleep", "300"])
    try:
        cgroup.enter(app, sleeper.pid)
        assert hierarchy.of_process(sleeper.pid) == app
        assert cgroup.members(app) == (sleeper.pid,)
        assert not cgroup.remove(root)
        assert cgroup.remove(root, kill=True)
        assert sleeper.wait(5) == -signal.SIGKILL
        assert not root.exists()
    finally:
        sleeper.kill()
        sleeper.wait()
        cgroup.remove(root, kill=True)


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0 or Hierarchy.find() is None, reason="needs root and cgroup2")
def test_only_a_group_that_systemd_delegated_is_built_upon() -> None:
    hierarchy = Hierarchy.find()
    assert hierarchy is not None
    unit = cgroup.make(hierarchy.mount / f"weft-test-{uuid.uuid4().hex[:8]}.service")
    sleeper = subprocess.Popen(["sleep", "300"])
    try:
        cgroup.enter(unit, sleeper.pid)
        assert hierarchy.delegated_to(sleeper.pid) is None
        os.setxattr(unit, "trusted.delegate", b"1")
        assert hierarchy.delegated_to(sleeper.pid) == unit
    finally:
        sleeper.kill()
        sleeper.wait()
        assert cgroup.remove(unit)
