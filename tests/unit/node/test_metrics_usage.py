from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from weft.node.metrics import usage

BUSY = "import os,time\nwhile sum(os.times()[:2]) < 0.3: pass\nprint('worked', flush=True)\n"


def test_a_tree_counts_children_that_live_and_that_have_ended() -> None:
    script = (
        "import subprocess,sys\n"
        f"subprocess.run([sys.executable, '-c', {BUSY!r}], stdout=subprocess.DEVNULL)\n"
        "sleep = 'import time; print(1, flush=True); time.sleep(60)'\n"
        "child = subprocess.Popen([sys.executable, '-c', sleep])\n"
        "sys.stdin.read()\nchild.kill()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        whole, below = usage.of_tree(process.pid), usage.of_tree(process.pid, itself=False)
        assert whole is not None
        assert below is not None
        assert (whole.processes, below.processes) == (2, 1)
        assert whole.cpu_s >= below.cpu_s >= 0.3
        assert whole.rss > below.rss > 1_000_000
        alone = usage.of_itself(process.pid)
        assert alone is not None
        assert alone.cpu_s < whole.cpu_s
    finally:
        process.communicate()
    assert usage.of_tree(process.pid) is None
    assert usage.of_process(process.pid) is None


def test_a_cgroup_says_what_the_kernel_counts(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / "cgroup.procs").write_text("")
    (below / "cgroup.procs").write_text(f"{os.getpid()}\n")
    plain = usage.of_group(tmp_path)
    assert plain is not None
    assert plain.processes == 1
    assert plain.rss > 1_000_000
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (tmp_path / "memory.current").write_text("7000\n")
    (tmp_path / "memory.stat").write_text("anon 3000\ninactive_file 2000\n")
    assert usage.of_group(tmp_path) == usage.Usage(2.5, 5000, 3000, 1)
    (below / "cgroup.procs").write_text("")
    assert usage.of_group(tmp_path) is None


def test_a_counter_never_falls() -> None:
    marks = usage.Marks()
    assert [marks.highest("a", value) for value in (1.0, 3.0, 2.0, 4.0)] == [1.0, 3.0, 3.0, 4.0]
    marks.keep(["b"])
    assert marks.highest("a", 0.5) == 0.5
