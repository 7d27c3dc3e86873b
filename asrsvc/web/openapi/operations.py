"""What one operation of the API is: how it is asked, what it answers, how it can fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from asrsvc.errors import AsrError, BadRequest, LimitReached, NotPermitted, OverCapacity, Unauthorised
from asrsvc.web.openapi.schemas import Schema

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
FORM: Final = "multipart/form-data"
KEY: Final = "key"
"""name of the way in which a client says who it is"""

RATE_LIMITS: Final = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
"""headers of answers to a client that may send so many requests a minute"""

ALWAYS: Final[tuple[type[AsrError], ...]] = (BadRequest, NotPermitted, AsrError)
"""what any request may be answered: two hosts in its header, another site's page, a fault of the service"""


@dataclass(frozen=True, slots=True)
class Good:
    """An answer to a request that succeeds."""

    meaning: str
    content: dict[str, Schema]
    """by media type; empty: no body"""
    status: HTTPStatus = HTTPStatus.OK
    headers: tuple[str, ...] = ()
    """names of `components/headers` that come with it"""
    examples: dict[str, dict[str, Any]] | None = None
    """by media type"""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    """as in the route"""
    name: str
    """operationId"""
    group: str
    summary: str
    text: str = ""
    """CommonMark"""
    parameters: tuple[Schema, ...] = ()
    body: dict[str, Schema] | None = None
    """by media type"""
    body_required: bool = True
    good: tuple[Good, ...] = ()
    errors: tuple[type[AsrError], ...] = ()
    open: bool = False
    """answers without a key though keys are on"""

    def described(self) -> dict[str, Any]:
        """As it stands below `paths`."""
        found: dict[str, Any] = {
            "operationId": self.name,
            "tags": [self.group],
            "summary": self.summary,
        }
        if self.text:
            found["description"] = self.text
        if self.open:
            found["security"] = []
        if self.parameters:
            found["parameters"] = list(self.parameters)
        if self.body is not None:
            content = {kind: {"schema": schema} for kind, schema in self.body.items()}
            found["requestBody"] = {"required": self.body_required, "content": content}
        found["responses"] = self._answers()
        return found

    def _answers(self) -> dict[str, Any]:
        limits = RATE_LIMITS if self.method == "post" and not self.open else ()
        answers = {str(int(good.status)): _good(good, limits) for good in self.good}
        refusals: tuple[type[AsrError], ...] = () if self.open else (Unauthorised, OverCapacity, LimitReached)
        for status, answer in _errors((*self.errors, *refusals, *ALWAYS)).items():
            if status in answers:  # health: the same body, another status
                continue
            answers[status] = answer
        return dict(sorted(answers.items()))


def parameter(where: str, name: str, schema: Schema, meaning: str) -> Schema:
    """A parameter of a path (then it is required) or behind the `?`."""
    return {"name": name, "in": where, "required": where == "path", "schema": schema, "description": meaning}


def events(kinds: Sequence[Schema]) -> Schema:
    """One server-sent event: JSON of one of these kinds, or the mark at the end.

    As OpenAPI 3.2 describes them; 3.1 has no way of its own, and readers take it for each event's schema.
    """
    body = {"type": "string", "contentMediaType": JSON, "contentSchema": {"oneOf": list(kinds)}}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"anyOf": [{"const": "[DONE]"}, body]}},
    }


def _good(good: Good, more_headers: Sequence[str]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": good.meaning,
        "headers": _headers("X-Request-Id", "X-Model-Version", *good.headers, *more_headers),
    }
    if good.content:
        answer["content"] = {}
        for kind, schema in good.content.items():
            answer["content"][kind] = {"schema": schema}
            if good.examples and kind in good.examples:
                answer["content"][kind]["examples"] = good.examples[kind]
    return answer


def _errors(kinds: Sequence[type[AsrError]]) -> dict[str, Any]:
    by_status: dict[int, list[type[AsrError]]] = defaultdict(list)
    for kind in dict.fromkeys(kinds):
        by_status[int(kind.status)].append(kind)
    return {str(status): _error(found) for status, found in by_status.items()}


def _error(kinds: list[type[AsrError]]) -> dict[str, Any]:
    meanings = []
    for kind in kinds:
        meaning = "The service failed; its log says why" if kind is AsrError else _first_sentence(kind)
        meanings.append(f"`{kind.default_code}`: {meaning}")
    headers = ["X-Request-Id"]
    if LimitReached in kinds or any(kind.retry_after_seconds is not None for kind in kinds):
        headers.append("Retry-After")
    if LimitReached in kinds:
        headers += RATE_LIMITS
    return {
        "description": ". ".join(meanings) + ".",
        "headers": _headers(*headers),
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _first_sentence(kind: type[AsrError]) -> str:
    return (kind.__doc__ or "").splitlines()[0].rstrip(".")


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in dict.fromkeys(names)}
