"""The operations that turn sound into text: `/api/transcribe` and OpenAI's contract under `/v1`."""

from __future__ import annotations

from typing import Final

from asrsvc.errors import (
    AsrError,
    BadAudio,
    BadRequest,
    FetchFailed,
    FetchTimeout,
    InferenceFailed,
    NoSpace,
    NotFound,
    NotReady,
    OutOfDescriptors,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
    UrlRefused,
)
from asrsvc.web import notices, openai_answers, openai_fields, transcriptions
from asrsvc.web.openai import TRANSCRIPTIONS_PATH, ModelBody, ModelList
from asrsvc.web.openapi.operations import EVENTS, FORM, JSON, Good, Operation, events, parameter
from asrsvc.web.openapi.schemas import Schema, Schemas, form

GROUP: Final = "Transcribe"
OPENAI: Final = "OpenAI's contract"

UPLOAD_ERRORS: Final[tuple[type[AsrError], ...]] = (
    BadRequest,
    BadAudio,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
    UrlRefused,
    FetchFailed,
    FetchTimeout,
    InferenceFailed,
    NotReady,
    NoSpace,
    OutOfDescriptors,
)

_TRANSCRIBE: Final = """Upload an audio or video file, get its text.

```sh
curl -s -F file=@meeting.m4a -F timestamps=word http://127.0.0.1:7860/api/transcribe
```

```python
import httpx

with open("meeting.m4a", "rb") as sound:
    answer = httpx.post(
        "http://127.0.0.1:7860/api/transcribe",
        files={"file": sound},
        data={"language": "auto", "timestamps": "word"},
        timeout=600,
    )
answer.raise_for_status()
for segment in answer.json()["segments"]:
    print(segment["start"], segment["text"], segment["emotion"], segment["confidence"])
```

A recording of which parts are missing (cut off, damaged) is transcribed as far as it goes, and `warnings`
says so: `[{"code": "audio_incomplete", "message": "…", "param": "file"}]`; the key is absent where nothing is
to be said. `incomplete=refuse` has such a recording refused instead: 400 `audio_truncated`.

With API keys, add `-H "Authorization: Bearer $KEY"`, or `headers={"Authorization": f"Bearer {key}"}`.

**From another machine**: `url=https://…` instead of `file`, where the setting `ASR_URL_HOSTS` lists the host.
Size and time are limited as those of an upload are.

```sh
curl -s -F url=https://media.example.org/meeting.m4a http://127.0.0.1:7860/api/transcribe
```

**As a stream** (`stream=true`), each stretch of speech comes as soon as it is done, as server-sent events.
Each is a line `data: ` and JSON with a `type`:

| `type` | holds |
|---|---|
| `progress` | `audio_seconds` that are done, `duration` of the recording if its header says it |
| `segment` | `segment`, with `words` if they were asked for |
| `done` | the whole answer, as without a stream |
| `error` | `error`, as in an answer that fails |

The last line is `data: [DONE]`; without it the answer is not whole. Lines that begin with `:` keep the
connection alive. A client that leaves stops the work.

```sh
curl -sN -F file=@meeting.m4a -F stream=true http://127.0.0.1:7860/api/transcribe
```

```python
with httpx.stream("POST", url, files={"file": sound}, data={"stream": "true"}, timeout=600) as answer:
    for line in answer.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            event = json.loads(line.removeprefix("data: "))
            if event["type"] == "segment":
                print(event["segment"]["text"])
```
"""

_OPENAI: Final = """OpenAI's transcription API: an application written for it needs another base URL, no more.

```sh
curl -s -F file=@meeting.m4a -F model=whisper-1 -F response_format=srt \\
    http://127.0.0.1:7860/v1/audio/transcriptions
```

```python
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:7860/v1", api_key="none")
with open("meeting.m4a", "rb") as sound:
    answer = client.audio.transcriptions.create(
        model="whisper-1",
        file=sound,
        response_format="verbose_json",
        timestamp_granularities=["segment", "word"],
    )
print(answer.text, answer.words)
```

What is incomplete is transcribed, and said: in `warnings` of `json`, `verbose_json` and
`transcript.text.done`, which OpenAI does not have, and in the header `X-Warnings` of every whole answer, also
of `text`, `srt` and `vtt`. `incomplete=refuse` refuses it.

Segments of `verbose_json` have keys that are not OpenAI's: `language`, `emotion`, `events`, `confidence`.
Names of fields that may come several times are taken without the brackets, with numbers in them, or as one
field with a JSON list; `chunking_strategy` as a JSON object, too. All names of models are the version that
serves; at OpenAI those but `gpt-transcribe` end on 2027-02-26, here they stay. Refused with a clear 400,
the fields as soon as the header of their part has come, since nothing would come of them: """


def operations(schemas: Schemas) -> list[Operation]:
    """All of them.

    Args:
        schemas: take the types of the answers.
    """
    refused = [field.name for field in openai_fields.FIELDS if field.unsupported]
    refused += [f"response_format={name}" for name in openai_fields.UNSUPPORTED_FORMATS]
    model_path = parameter("path", "name", {"type": "string", "minLength": 1}, "as `GET /v1/models` lists it")
    stream_query = parameter(
        "query",
        "stream",
        {"type": "boolean"},
        "what the field does, for clients whose form is made by something else; not both",
    )
    return [
        Operation(
            "post",
            "/api/transcribe",
            "transcribe",
            GROUP,
            "A recording's text",
            _TRANSCRIBE,
            parameters=(stream_query,),
            body={FORM: form(transcriptions.FIELDS)},
            good=(
                Good(
                    "The text, with what was asked for",
                    {JSON: schemas.of(transcriptions.Answer), EVENTS: events(_own_events(schemas))},
                    headers=(notices.HEADER,),
                ),
            ),
            errors=UPLOAD_ERRORS,
        ),
        Operation(
            "post",
            TRANSCRIPTIONS_PATH,
            "createTranscription",
            OPENAI,
            "A recording's text, as OpenAI's clients ask for it",
            _OPENAI + ", ".join(f"`{name}`" for name in refused) + ".",
            body={FORM: form(openai_fields.FIELDS)},
            good=(
                Good(
                    "The text in the response_format that was asked for, or as a stream of its events",
                    {
                        JSON: {
                            "anyOf": [schemas.of(openai_answers.Verbose), schemas.of(openai_answers.Json)]
                        },
                        "text/plain": {"type": "string"},
                        "text/vtt": {"type": "string"},
                        EVENTS: events(
                            [
                                schemas.of(openai_answers.Delta),
                                schemas.of(openai_answers.SegmentEvent),
                                schemas.of(openai_answers.Done),
                                _failed(),
                            ]
                        ),
                    },
                    headers=(notices.HEADER,),
                ),
            ),
            errors=(*UPLOAD_ERRORS, NotFound),
        ),
        Operation(
            "post",
            "/v1/audio/translations",
            "createTranslation",
            OPENAI,
            "Not supported: SenseVoice writes what is said in the language in which it is said",
            body={FORM: {"type": "object"}},
            body_required=False,
            errors=(BadRequest,),
        ),
        Operation(
            "get",
            "/v1/models",
            "listModels",
            OPENAI,
            "The version that serves, under all its names",
            good=(Good("The models", {JSON: schemas.of(ModelList)}),),
            errors=(NotReady,),
        ),
        Operation(
            "get",
            "/v1/models/{name}",
            "retrieveModel",
            OPENAI,
            "One of the names",
            parameters=(model_path,),
            good=(Good("The model", {JSON: schemas.of(ModelBody)}),),
            errors=(NotFound, NotReady),
        ),
    ]


def _own_events(schemas: Schemas) -> list[Schema]:
    number = {"type": "number", "minimum": 0}
    progress = {"audio_seconds": number, "duration": {"type": ["number", "null"], "minimum": 0}}
    whole = {"allOf": [schemas.of(transcriptions.Answer), _event("done")]}
    return [
        _event("progress", **progress),
        _event("segment", segment=schemas.of(transcriptions.SegmentBody)),
        whole,
        _failed(),
    ]


def _failed() -> Schema:
    return {"allOf": [{"$ref": "#/components/schemas/Error"}, _event("error")]}


def _event(name: str, **keys: Schema) -> Schema:
    properties = {"type": {"type": "string", "const": name}, **keys}
    return {"type": "object", "required": list(properties), "properties": properties}
