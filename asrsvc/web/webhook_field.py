"""The field `webhook` of a job: an address that is told when the job has ended."""

from __future__ import annotations

from typing import Final

from asrsvc.errors import BadRequest, FetchTimeout
from asrsvc.remote.client import Client
from asrsvc.remote.hosts import SETTING
from asrsvc.web.fields import Field
from asrsvc.web.form import Form

SECRET: Final = "ASR_WEBHOOK_SECRET"  # noqa: S105 - the name of the setting
WEBHOOK: Final = Field(
    "webhook",
    f"https address that is told when the job has succeeded or failed; its host must be one of {SETTING}",
    most_bytes=2048,
)


class WebhookField:
    """Checks what forms name."""

    def __init__(self, client: Client | None, *, signed: bool) -> None:
        """Prepare.

        Args:
            client: goes to the hosts that may be asked; None: there are none.
            signed: whether there is a secret to sign with.
        """
        self._client = client
        self._signed = signed

    async def check(self, form: Form) -> str | None:
        """The address, if there is one and it may be called now; it is checked again when it is called.

        Raises:
            BadRequest: webhooks are off, or it is no address.
            UrlRefused: its host is not in the list, or leads to a private address.
            FetchFailed: no host has this name.
        """
        text = form.fields.get(WEBHOOK.name, "").strip()
        if not text:
            return None
        if self._client is None:
            raise BadRequest(
                f"webhook is off here: {SETTING} names no hosts; /api/jobs/…/events tells of a job too",
                param="webhook",
                code="webhook_off",
            )
        if not self._signed:
            raise BadRequest(
                f"webhook is off here: {SECRET} has no secret to sign with",
                param="webhook",
                code="webhook_off",
            )
        try:
            await self._client.check(text, WEBHOOK.name)
        except FetchTimeout:
            pass  # nobody says where it is just now; whether it may be called is asked again then
        return text
