"""The description of the API is what the application does: every route, field, value and error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NotRequired, TypedDict, cast, get_type_hints

import pytest
import schemathesis
from starlette.applications import Starlette
from starlette.routing import Route

from asrsvc import settings
from asrsvc.errors import AsrError
from asrsvc.release.card import Card
from asrsvc.speech.text import EMOTIONS, EVENTS, NO_SPEECH
from asrsvc.speech.types import LANGUAGES
from asrsvc.web import admin, jobs, openai_fields, transcriptions
from asrsvc.web.app import ENGINE_PATHS, create_app
from asrsvc.web.fields import Field
from asrsvc.web.jobs import JobDesk
from asrsvc.web.openapi.document import described, document
from asrsvc.web.openapi.schemas import Schemas, form

PAGES = {"/", "/docs", "/openapi.json", "/page/{name:path}"}
DOCUMENT = document()
OPERATIONS = described(Schemas())


class Recorded(admin.Admin):
    """Notes which method each path is for: its routes take all, to tell strangers nothing."""

    methods: dict[str, str] = {}  # noqa: RUF012 - shared on purpose

    def _route(self, path: str, method: str, endpoint: admin.Endpoint) -> Route:
        self.methods[path] = method
        return super()._route(path, method, endpoint)


def served(tmp_path: Path) -> set[tuple[str, str]]:
    """Method and path of all that the application serves, but for pages."""
    environ = {"ASR_STORE": str(tmp_path / "store"), "ASR_RUNTIME_DIR": str(tmp_path / "run")}
    nobody: Any = SimpleNamespace(model=SimpleNamespace(version="none"))
    app: Any = create_app(
        settings.load(environ=environ),
        nobody,
        Card("none", None, None, 0),
        threads=1,
        observe=lambda _status, _note: None,
        access=cast("Any", SimpleNamespace(problems=lambda: (), table=None)),
        counting=cast("Any", SimpleNamespace(meter=None, metrics=SimpleNamespace(endpoint=None))),
        admin=Recorded(cast("Any", None), ""),
        more=JobDesk(nobody, limits=nobody, keep_seconds=1, wake=lambda: None).routes(),
    )
    while not isinstance(app, Starlette):
        app = app._app if hasattr(app, "_app") else app.app
    found = set()
    for route in app.routes:
        assert isinstance(route, Route)
        methods = {Recorded.methods.get(route.path)} if route.path in Recorded.methods else route.methods
        for method in (methods or set()) - {"HEAD", None}:
            if route.path not in PAGES:
                found.add((str(method).lower(), route.path.replace(":path}", "}")))
    return found


def test_every_route_is_described_and_no_other(tmp_path: Path) -> None:
    told = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert told == served(tmp_path)


def test_the_description_is_well_formed() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    text = json.dumps(DOCUMENT)
    for kind, name in re.findall(r'"#/components/(\w+)/([\w-]+)"', text):
        assert name in DOCUMENT["components"][kind]
    for kind in ("schemas", "headers"):
        for name in DOCUMENT["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text, f"{name} is used nowhere"


def test_every_operation_has_a_name_of_its_own_and_a_group_that_is_described() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert {operation.group for operation in OPERATIONS} == {tag["name"] for tag in DOCUMENT["tags"]}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/transcribe", transcriptions.FIELDS),
        ("/v1/audio/transcriptions", openai_fields.FIELDS),
        ("/api/jobs", jobs.FIELDS),
    ],
)
def test_every_field_is_described_with_its_values(path: str, fields: tuple[Field, ...]) -> None:
    body = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert body["additionalProperties"] is False
    assert body["oneOf"] == [{"required": ["file"]}, {"required": ["url"]}]
    taken = [field for field in fields if not field.unsupported]
    names = [f"{field.name}[]" if field.many else field.name for field in taken]
    assert list(body["properties"]) == ["file", *names]
    for name, field in zip(names, taken, strict=True):
        described_as = body["properties"][name]
        assert described_as["description"] == field.meaning
        assert (described_as["type"] == "array") == field.many
        values = described_as.get("items", described_as).get("enum", [])
        assert tuple(values) == field.values
        default = described_as.get("default")
        assert (str(default).lower() if default is not None else None) == field.default
    text = DOCUMENT["paths"][path]["post"]["description"]
    for field in fields:
        if field.unsupported:
            assert f"`{field.name}`" in text


def test_what_words_may_say_is_described() -> None:
    segment = DOCUMENT["components"]["schemas"]["Segment"]["properties"]
    assert segment["language"]["enum"] == [*LANGUAGES[1:], NO_SPEECH]
    assert segment["emotion"]["enum"] == list(EMOTIONS)
    assert segment["events"]["items"]["enum"] == list(EVENTS)
    assert set(segment) == set(get_type_hints(transcriptions.SegmentBody))
    assert "words" not in DOCUMENT["components"]["schemas"]["Segment"]["required"]


def test_fields_of_changes_are_described() -> None:
    for path, fields in (("update", admin.UPDATE), ("rollback", admin.ROLLBACK), ("reload", admin.RELOAD)):
        content = DOCUMENT["paths"][f"/admin/model/{path}"]["post"]["requestBody"]["content"]
        for kind in ("application/json", "application/x-www-form-urlencoded"):
            assert set(content[kind]["schema"]["properties"]) == set(fields)


def test_what_waits_in_the_queue_can_be_refused() -> None:
    for path in ENGINE_PATHS:
        answers = DOCUMENT["paths"][path]["post"]["responses"]
        assert {"200", "400", "401", "403", "408", "413", "415", "429", "503", "507"} <= set(answers)
        assert "Retry-After" in answers["429"]["headers"]
        assert "Retry-After" in answers["503"]["headers"]
        assert "X-RateLimit-Remaining" in answers["429"]["headers"]


def test_warnings_are_described_where_there_may_be_some() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    warning = {"$ref": "#/components/schemas/Warning"}
    assert schemas["Warning"]["required"] == ["code", "message", "param"]
    for name in ("Transcript", "OpenAiTranscript", "OpenAiVerboseTranscript", "Done", "Job"):
        assert schemas[name]["properties"]["warnings"]["items"] == warning, name
        assert "absent" in schemas[name]["properties"]["warnings"]["description"]
        assert "warnings" not in schemas[name]["required"], name
    for path, method in (
        ("/api/transcribe", "post"),
        ("/v1/audio/transcriptions", "post"),
        ("/api/jobs/{job}/result", "get"),
    ):
        assert "X-Warnings" in DOCUMENT["paths"][path][method]["responses"]["200"]["headers"]


def test_only_health_needs_no_key() -> None:
    assert {operation.path for operation in OPERATIONS if operation.open} == {
        "/health",
        "/health/live",
        "/health/ready",
    }
    for operation in OPERATIONS:
        answers = DOCUMENT["paths"][operation.path.replace(":path}", "}")][operation.method]["responses"]
        assert ("401" in answers) != operation.open


def test_every_error_that_is_told_has_a_status_and_a_sentence() -> None:
    for operation in OPERATIONS:
        for kind in operation.errors:
            assert issubclass(kind, AsrError)
            assert kind.__doc__
            answer = operation.described()["responses"][str(int(kind.status))]
            assert f"`{kind.default_code}`" in answer["description"] or operation.path.startswith("/health")


class Leaf(TypedDict):
    """A leaf; see `tree`."""

    size: float | None
    kind: Literal["oak", "ash"]


class Tree(TypedDict):
    """A tree."""

    leaves: list[Leaf]
    seen: NotRequired[bool]
    both: Leaf | str


def test_types_become_schemas() -> None:
    schemas = Schemas()
    assert schemas.of(Tree) == {"$ref": "#/components/schemas/Tree"}
    leaf = {"$ref": "#/components/schemas/Leaf"}
    assert schemas.found["Tree"] == {
        "type": "object",
        "description": "A tree",
        "required": ["leaves", "both"],
        "properties": {
            "leaves": {"type": "array", "items": leaf},
            "seen": {"type": "boolean"},
            "both": {"anyOf": [leaf, {"type": "string"}]},
        },
    }
    assert schemas.found["Leaf"]["description"] == "A leaf"
    assert schemas.found["Leaf"]["properties"] == {
        "size": {"type": ["number", "null"]},
        "kind": {"type": "string", "enum": ["oak", "ash"]},
    }
    with pytest.raises(TypeError, match="no schema"):
        schemas.of(Path)


def test_two_types_of_one_name_are_not_mixed_up() -> None:
    schemas = Schemas()
    schemas.of(Leaf)
    other = TypedDict("Leaf", {"a": str})  # type: ignore[misc]  # noqa: UP013
    with pytest.raises(TypeError, match="two types are called Leaf"):
        schemas.of(other)


def test_fields_become_a_form() -> None:
    schema = form(
        [
            Field("share", "a share", kind="number", default="0.5", low=0, high=1),
            Field("parts", "some", values=("a", "b"), many=True),
            Field("gone", "none", unsupported="for a reason"),
        ]
    )
    assert set(schema["properties"]) == {"file", "share", "parts[]"}
    assert schema["properties"]["share"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0.5,
        "description": "a share",
    }
    assert schema["properties"]["parts[]"]["items"]["enum"] == ["a", "b"]
