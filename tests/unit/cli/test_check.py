"""What ``weft check`` says of a control plane that it is told of."""

from __future__ import annotations

import asyncio
from pathlib import Path

from click.testing import CliRunner
from tests.support.ports import free_port

from weft.cli import weft
from weft.cli.check import check_control_plane, of_proxies, of_telemetry
from weft.control.app import control_plane
from weft.control.options import ControlOptions
from weft.errors import UsageError, WeftError


async def test_a_real_one(tmp_path: Path) -> None:
    options = ControlOptions(
        runtime=tmp_path / "run", state=tmp_path / "state", listen="127.0.0.1", api_port=free_port(),
        xds_port=free_port(), monitoring_port=0, telemetry_port=0,
    )  # fmt: skip
    stop = asyncio.Event()
    async with control_plane(options, stop) as listening:
        found = await asyncio.to_thread(check_control_plane, str(listening.socket))
        stop.set()
    assert [(one.name, one.status) for one in found] == [
        ("API", "ok"), ("proxies", "ok"), ("telemetry", "ok"),
    ]  # fmt: skip
    assert "all 0 that are connected" in found[1].message
    (gone,) = await asyncio.to_thread(check_control_plane, str(tmp_path / "none.sock"))
    assert (gone.name, gone.status) == ("API", "fail")
    assert gone.remedy


def test_proxies_that_lag_or_refuse() -> None:
    refused = {"proxy": "web-0.shop", "type": "lds", "name": "a", "error": "b"}
    missing = ["web-0.shop", *(f"api-{number}.shop" for number in range(5))]
    bad, late = of_proxies({"total": 9, "rejected": [refused, refused], "missing": missing})
    assert (bad.status, bad.message) == ("fail", "1 of 9 refuse a part of their configuration: web-0.shop")
    assert (late.status, late.message) == (
        "warn", "5 of 9 do not run it yet: api-0.shop, api-1.shop, api-2.shop, …"
    )  # fmt: skip


def test_what_telemetry_lost_and_who_is_not_told() -> None:
    def collector(**more: object) -> dict[str, object]:
        return {"provider": "all", "endpoint": "a.example", "error": "", "up": False, "sent": 0, **more}

    said = [collector(up=True, sent=7), collector(error="UNAVAILABLE: nobody", up=True), collector()]
    lost, well, away, new = of_telemetry({"lost": {"metric_gaps": 2, "strangers": 0}, "collectors": said})
    assert (lost.status, lost.message) == ("warn", "lost since it began: 2 metric_gaps")
    assert (well.status, well.message) == ("ok", "a.example takes them: 7 points so far")
    assert (away.name, away.status, away.message) == (
        "metrics to all", "warn", "a.example: UNAVAILABLE: nobody",
    )  # fmt: skip
    assert new.status == "ok"
    (gone,) = of_telemetry(WeftError("the telemetry process does not run", hint="wait"))
    assert (gone.status, gone.remedy) == ("warn", "wait")


def test_a_host_alone_has_no_server() -> None:
    done = CliRunner().invoke(weft, ["check", "--host", "--server", "/x"], standalone_mode=False)
    assert isinstance(done.exception, UsageError)
