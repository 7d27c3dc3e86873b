"""The fields of OpenAI's transcription contract, and what they ask of the service."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from asrsvc.errors import BadRequest, NotFound
from asrsvc.speech.transcribe import Options
from asrsvc.speech.types import LANGUAGES, Language
from asrsvc.web.fields import OTHER_NAMES, Field, parse
from asrsvc.web.form import Form
from asrsvc.web.notices import INCOMPLETE, refuses
from asrsvc.web.url_field import URL

FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt")
"""of an answer"""
UNSUPPORTED_FORMATS: Final = ("diarized_json",)
"""of OpenAI's, which this service does not have"""
GRANULARITIES: Final = ("segment", "word")
_STREAMED: Final = ("json", "text", "verbose_json")
_UNSTREAMED_MODEL: Final = "whisper-1"
"""OpenAI ignores `stream` with it, and its clients rely on that"""
_NO_SPEAKERS: Final = "speakers are not told apart"

FIELDS: Final = (
    Field("model", "a name that GET /v1/models lists; any of them is the version that serves"),
    Field("language", f"what is spoken; {OTHER_NAMES}", kind="language", values=LANGUAGES),
    Field(
        "languages",
        f"what may be spoken, instead of language; {OTHER_NAMES}",
        kind="language",
        values=LANGUAGES[1:],
        many=True,
    ),
    Field("prompt", "taken, without effect: SenseVoice cannot be prompted", most_bytes=16 * 1024),
    Field("response_format", "of the answer", values=FORMATS, default="json"),
    Field("temperature", "taken, without effect: decoding is greedy", kind="number", low=0, high=1),
    Field(
        "timestamp_granularities",
        "with verbose_json (default segment); beside other formats taken, without effect",
        values=GRANULARITIES,
        many=True,
    ),
    Field(
        "stream",
        "true: server-sent events, each span as it is done; with model whisper-1 taken, without effect",
        kind="boolean",
        default="false",
    ),
    Field("include", "logprobs: of each token, with json or verbose_json", values=("logprobs",), many=True),
    Field("chunking_strategy", "taken, without effect: the service cuts by itself", values=("auto",)),
    Field("chunking_strategy[type]", "as chunking_strategy", values=("server_vad",)),
    Field("chunking_strategy[prefix_padding_ms]", "as chunking_strategy", kind="number", low=0, high=1e6),
    Field("chunking_strategy[silence_duration_ms]", "as chunking_strategy", kind="number", low=0, high=1e6),
    Field("chunking_strategy[threshold]", "as chunking_strategy", kind="number", low=0, high=1),
    Field(
        "use_itn",
        "not OpenAI's; false: the words as spoken, without punctuation and digits",
        kind="boolean",
        default="true",
    ),
    Field(
        "punctuation",
        "not OpenAI's; false: no punctuation; digits and capitals stay as use_itn has them",
        kind="boolean",
        default="true",
    ),
    INCOMPLETE,
    replace(URL, meaning=f"not OpenAI's; {URL.meaning}"),
    Field("keywords", "refused", many=True, unsupported="words to listen for cannot be given yet"),
    Field("known_speaker_names", "refused", many=True, unsupported=_NO_SPEAKERS),
    Field("known_speaker_references", "refused", many=True, unsupported=_NO_SPEAKERS),
)
"""that may stand beside `file`"""


@dataclass(frozen=True, slots=True)
class Wishes:
    """The text fields of a request, checked."""

    options: Options
    format: str
    granularities: frozenset[str]
    """with verbose_json"""
    logprobs: bool
    stream: bool


def check_model(name: str, served: Collection[str]) -> None:
    """Whether the name is one of those that are served.

    Raises:
        NotFound: it is not.
    """
    if name not in served:
        raise NotFound(
            f"model {name[:60]!r} is not served; {', '.join(served)} are",
            param="model",
            code="model_not_found",
        )


def parse_fields(form: Form, served: Collection[str], *, refuse_incomplete: bool = False) -> Wishes:
    """Check the text fields.

    Args:
        form: of the request.
        served: names of models.
        refuse_incomplete: what is done with an incomplete recording where the request does not say.

    Raises:
        BadRequest: a value is not among those that the message lists, or does not fit the others.
        NotFound: the model is not served.
    """
    if form.fields.get("response_format") in UNSUPPORTED_FORMATS:
        raise BadRequest(
            f"response_format {form.fields['response_format']} is not supported: {_NO_SPEAKERS};"
            f" one of {', '.join(FORMATS)} is right",
            param="response_format",
            code="unsupported_value",
        )
    found = parse(FIELDS, form)
    if found["model"] is not None:
        check_model(found["model"], served)
    form_at = found["response_format"]
    # OpenAI ignores them beside the other formats, and the AI SDK sends them there.
    granularities = frozenset(found["timestamp_granularities"] if form_at == "verbose_json" else ())
    logprobs = bool(found["include"])
    streamed = found["stream"] and found["model"] != _UNSTREAMED_MODEL
    if logprobs and form_at not in {"json", "verbose_json"}:
        raise BadRequest(
            f"include logprobs comes with response_format json or verbose_json, not with {form_at}",
            param="include",
        )
    if streamed and form_at not in _STREAMED:
        raise BadRequest(
            f"a stream has no response_format {form_at}; one of {', '.join(_STREAMED)} is right",
            param="response_format",
        )
    _check_chunking(found)
    language, candidates = _languages(found)
    return Wishes(
        options=Options(
            language=language,
            use_itn=found["use_itn"],
            punctuation=found["punctuation"],
            words=form_at in {"srt", "vtt"} or "word" in granularities,
            tokens=logprobs or form_at == "verbose_json",
            candidates=candidates,
            refuse_incomplete=refuses(found, by_default=refuse_incomplete),
        ),
        format=form_at,
        granularities=granularities or frozenset({"segment"}),
        logprobs=logprobs,
        stream=streamed,
    )


def _languages(found: dict[str, Any]) -> tuple[Language, tuple[Language, ...]]:
    candidates = cast("tuple[Language, ...]", found["languages"])
    if not candidates:
        return cast("Language", found["language"] or "auto"), ()
    if found["language"] is not None:
        raise BadRequest("language and languages are both given; one of them is right", param="languages")
    return ("auto", candidates) if len(candidates) > 1 else (candidates[0], ())


def _check_chunking(found: dict[str, Any]) -> None:
    kind = found["chunking_strategy[type]"]
    parts = [name for name in found if name.startswith("chunking_strategy[") and found[name] is not None]
    if parts and kind is None:
        raise BadRequest(
            f"{parts[0]} comes with chunking_strategy[type]=server_vad", param="chunking_strategy"
        )
    if parts and found["chunking_strategy"] is not None:
        raise BadRequest("chunking_strategy is given twice", param="chunking_strategy")
