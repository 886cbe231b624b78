"""Whether an update comes from Meta: ``X-Hub-Signature-256``, an HMAC-SHA256 over the bytes as received.

See developers.facebook.com/docs/graph-api/webhooks/getting-started. Nothing is parsed before this holds, and nothing
is written anew: Meta signs text with escaped unicode, of which another JSON writer makes other bytes.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

HEADER = "x-hub-signature-256"
_PREFIX = "sha256="


def sign(secret: bytes, raw: bytes) -> str:
    """Return the header's value for ``raw``."""
    return _PREFIX + hmac.digest(secret, raw, "sha256").hex()


def genuine(secrets: Sequence[bytes], given: str | None, raw: bytes) -> bool:
    """Tell whether one of the app secrets signed ``raw``. In a time that tells nothing about the right signature."""
    if not given:
        return False
    # compare_digest refuses texts beyond ASCII, which a header may hold.
    claimed = given.strip().encode(errors="replace")
    matches = [hmac.compare_digest(sign(secret, raw).encode(), claimed) for secret in secrets]
    return any(matches)
