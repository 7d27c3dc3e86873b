"""OpenAI's transcription API under `/v1`: an application written for it needs another base URL, no more."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final, TypedDict

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asrsvc.errors import BadRequest
from asrsvc.release.card import Card
from asrsvc.speech.subtitles import to_srt, to_vtt
from asrsvc.speech.types import LANGUAGES, Segment, Transcript
from asrsvc.web.answers import JsonResponse
from asrsvc.web.desk import Desk
from asrsvc.web.events import Event, stream
from asrsvc.web.form import Form
from asrsvc.web.notices import headers
from asrsvc.web.openai_answers import Writer
from asrsvc.web.openai_fields import FIELDS, Wishes, check_model, parse_fields

_SILENCE_SECONDS: Final = 10.0  # of a stream, after which its client hears that it is alive
TRANSCRIPTIONS_PATH: Final = "/v1/audio/transcriptions"


class ModelBody(TypedDict):
    """A model as it is listed; the keys behind `owned_by` are not OpenAI's."""

    id: str
    object: str
    created: int
    owned_by: str
    version: str
    name: str
    licence: str | None
    licence_link: str | None
    languages: list[str]


class ModelList(TypedDict):
    """The models."""

    object: str
    data: list[ModelBody]


class OpenAi:
    """The endpoints."""

    def __init__(
        self, desk: Desk, card: Card, aliases: Sequence[str], *, refuse_incomplete: bool = False
    ) -> None:
        """Prepare.

        Args:
            desk: takes the requests.
            card: of the version that serves.
            aliases: names that clients may give it.
            refuse_incomplete: what is done with an incomplete recording where the request does not say.
        """
        self._desk = desk
        self._card = card
        self._refuse_incomplete = refuse_incomplete
        self._names = tuple(dict.fromkeys((desk.version, card.name, *aliases)))

    def routes(self) -> list[Route]:
        """All paths."""
        return [
            Route(TRANSCRIPTIONS_PATH, self._transcribe, methods=["POST"]),
            Route("/v1/audio/translations", _translate, methods=["POST"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/models/{name:path}", self._model, methods=["GET"]),
        ]

    async def _transcribe(self, request: Request) -> Response:
        form = await self._desk.read(request, FIELDS)
        try:
            wishes = parse_fields(form, self._names, refuse_incomplete=self._refuse_incomplete)
            await self._desk.fetch(request, form)
            if wishes.stream:
                return await stream(self._events(request, form, wishes))
            transcript = await self._desk.transcribe(request, form, wishes.options)
        finally:
            form.close()
        return _answer(transcript, wishes)

    async def _events(self, request: Request, form: Form, wishes: Wishes) -> AsyncGenerator[Event, None]:
        writer = Writer(wishes)
        last = -math.inf
        async with aclosing(self._desk.follow(request, form, wishes.options)) as steps:
            async for step in steps:
                if isinstance(step, Segment):
                    for event in writer.events(step):
                        last = time.monotonic()
                        yield event
                elif isinstance(step, Transcript):
                    yield writer.done(step)
                elif time.monotonic() - last > _SILENCE_SECONDS:
                    last = time.monotonic()
                    yield None

    async def _models(self, _request: Request) -> Response:
        listed: ModelList = {"object": "list", "data": [self._describe(name) for name in self._names]}
        return JsonResponse(listed)

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        check_model(name, self._names)
        return JsonResponse(self._describe(name))

    def _describe(self, name: str) -> ModelBody:
        return {
            "id": name,
            "object": "model",
            "created": self._card.created,
            "owned_by": "asrsvc",
            "version": self._desk.version,
            "name": self._card.name,
            "licence": self._card.licence,
            "licence_link": self._card.licence_link,
            "languages": list(LANGUAGES[1:]),
        }


async def _translate(_request: Request) -> Response:
    raise BadRequest(
        "translation is not supported: SenseVoice writes what is said in the language in which it is said;"
        f" POST {TRANSCRIPTIONS_PATH} does",
        code="translation_unsupported",
    )


def _answer(transcript: Transcript, wishes: Wishes) -> Response:
    """The whole answer in the format that was asked for."""
    writer, said = Writer(wishes), headers(transcript.warnings)
    match wishes.format:
        case "text":
            return PlainTextResponse(transcript.text, headers=said)
        case "srt":
            return PlainTextResponse(to_srt(transcript.segments), headers=said)
        case "vtt":
            return PlainTextResponse(to_vtt(transcript.segments), media_type="text/vtt", headers=said)
        case "verbose_json":
            return JsonResponse(writer.verbose(transcript), headers=said)
        case _:
            return JsonResponse(writer.json(transcript), headers=said)
