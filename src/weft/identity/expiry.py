"""When a signing certificate should be replaced: early enough that nobody has to hurry."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

_SHARE: Final = 0.2
_MOST: Final = timedelta(days=90)


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether less than a fifth of its life is left, 90 days at most."""
    until = certificate.not_valid_after_utc
    return until - now < min((until - certificate.not_valid_before_utc) * _SHARE, _MOST)
