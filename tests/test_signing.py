"""Signatures of webhooks, and the program in the documentation that checks them."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from service import PROJECT

from asrsvc.jobs import signing

DOCUMENT = (PROJECT / "docs" / "webhooks.md").read_text(encoding="utf-8")
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLD = "a secret of sixteen characters or more".replace(" ", "-")


def checker(secret: str) -> Callable[[dict[str, str], bytes], Any]:
    """What the documentation shows, as a receiver would have it."""
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    assert "whsec_…" in program
    scope: dict[str, Any] = {}
    exec(compile(program.replace("whsec_…", secret), "docs/webhooks.md", "exec"), scope)
    found: Callable[[dict[str, str], bytes], Any] = scope["verify"]
    return found


def test_a_signature_is_that_of_the_standard() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks, spec and libraries."""
    found = signing.headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330.9,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert found == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("secret", [SECRET, OLD])
def test_the_documented_program_takes_what_was_signed_and_nothing_else(secret: str) -> None:
    verify = checker(secret)
    body = '{"type":"job.succeeded","data":{"id":"早晨"}}'.encode()
    now = time.time()
    signed = signing.headers("msg_1", now, body, ["whsec_" + base64.b64encode(bytes(16)).decode(), secret])
    assert len(signed["webhook-signature"].split(" ")) == 2
    assert verify(signed, body)["data"]["id"] == "早晨"
    for wrong in (
        {**signed, "webhook-id": "msg_2"},
        {**signed, "webhook-timestamp": str(int(now) + 1)},
        {**signed, "webhook-signature": signed["webhook-signature"].split(" ")[0]},
        {**signed, "webhook-signature": ""},
        {**signed, "webhook-signature": "v2," + signed["webhook-signature"].split(",")[-1]},
        signing.headers("msg_1", now - 3600, body, [secret]),
        signing.headers("msg_1", now + 3600, body, [secret]),
    ):
        with pytest.raises(ValueError, match="webhook"):
            verify(wrong, body)
    with pytest.raises(ValueError, match="webhook"):
        verify(signed, body + b" ")
