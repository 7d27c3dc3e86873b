"""Signatures of webhooks, as Standard Webhooks has them: HMAC-SHA256 over id, time and body.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "whsec_"


def key_of(secret: str) -> bytes:
    """What a secret's text stands for: Base64 behind `whsec_`, else its own bytes.

    Raises:
        ValueError: what follows `whsec_` is no Base64.
    """
    if secret.startswith(PREFIX):
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    return secret.encode()


def headers(event: str, moment: float, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """The headers that sign a body.

    Args:
        event: id of what is told; the same when it is told again.
        moment: of this attempt, seconds of the epoch.
        body: as it is sent.
        secrets: there is a signature with each.
    """
    seconds = str(int(moment))
    signed = f"{event}.{seconds}.".encode() + body
    signatures = (
        base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode() for secret in secrets
    )
    return {
        "webhook-id": event,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
