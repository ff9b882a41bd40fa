"""Regular expressions as Istio takes them: RE2's, at most 1024 bytes long."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

LONGEST: Final = 1024
# Envoy takes programs up to 32768 (the bootstrap says so, as Istio's does) and refuses the whole route table
# for one that is larger. Some room is left for what is put around a pattern.
_LARGEST: Final = 32_512
# RE2 knows it, but Istio, which asks Go, does not.
_ANY_BYTE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\C")


@lru_cache(maxsize=4096)
def pattern(text: str) -> str:
    """A complaint, or the empty text when RE2 can read the pattern."""
    if not text:
        return "a regular expression must not be empty"
    if len(text.encode(errors="replace")) > LONGEST:
        return f"the regular expression is longer than {LONGEST} bytes"
    if _ANY_BYTE.search(text):
        return r"this is no regular expression here: \C, any byte, is not known"
    import re2  # only where a document has a regular expression

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(text, options)
    except re2.error as error:
        about = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        return f"this is no regular expression of RE2: {about}"
    options.encoding = re2.Options.Encoding.LATIN1  # Envoy reads bytes
    try:
        size = re2.compile(text.encode(errors="replace"), options).programsize
    except re2.error:
        return "Envoy reads bytes: it does not know this character by its number"
    return "" if size <= _LARGEST else "the regular expression is too large for Envoy: repeat less"
