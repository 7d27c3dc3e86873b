"""The operations of operators: health, metrics, administration."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from asrsvc.errors import (
    BadRequest,
    NotFound,
    NotReady,
    OperationUnderWay,
    RequestTimeout,
    StatusError,
    StoreError,
    TooLarge,
    UnknownVersion,
    UnsupportedMediaType,
)
from asrsvc.web import admin
from asrsvc.web.openapi.operations import JSON, Good, Operation, parameter
from asrsvc.web.openapi.schemas import Schema

HEALTH: Final = "Health"
ADMIN: Final = "Administration"

_FORM: Final = "application/x-www-form-urlencoded"
_OBJECT: Final[Schema] = {"type": "object"}
_ALIVE: Final[Schema] = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string", "const": "alive"}},
}
_METRIC_KINDS: Final = ("text/plain", "application/openmetrics-text")
_METRICS: Final = """In Prometheus' text format, or OpenMetrics where that is accepted. The ops listener asks
for no key; elsewhere an API key or the admin's token is right.

```sh
curl -s --unix-socket var/run/ops.sock http://ops/metrics
```
"""
_PROBLEMS: Final = "in sentences; those for everybody name no path and nothing of a file"
_STATES: Final = ("healthy", "degraded", "unhealthy")

_UPDATE: Final = """Begins a roll to a version of the store. The answer comes at once, and says where to
watch: the worker that answers will be replaced itself.

```sh
curl -s --unix-socket var/run/ops.sock http://ops/admin/model/update \\
    --json '{"version": "sensevoice-nano-3dc8fa43"}'
```

```python
import httpx

ops = httpx.Client(transport=httpx.HTTPTransport(uds="var/run/ops.sock"), base_url="http://ops")
begun = ops.post("/admin/model/update", json={"version": "sensevoice-nano-3dc8fa43"}).json()
print(ops.get(begun["watch"]).json()["state"])
```

`/admin` is for the ops listener (`ASR_OPS_BIND`); elsewhere it wants the token of `ASR_ADMIN_TOKEN`, and
without one it is not there (404).
"""


def health() -> Schema:
    """What a worker says of itself."""
    return {
        "type": "object",
        "description": "How the service is",
        "required": ["status", "model_loaded", "model_version", "problems"],
        "properties": {
            "status": {"type": "string", "enum": list(_STATES)},
            "model_loaded": {"type": "boolean"},
            "model_version": {"type": ["string", "null"]},
            "problems": {"type": "array", "items": {"type": "string"}, "description": _PROBLEMS},
        },
    }


def operations() -> list[Operation]:
    """All of them."""
    return [*_healths(), _metrics(), *_changes(), *_looks()]


def _healths() -> list[Operation]:
    body = {JSON: {"$ref": "#/components/schemas/Health"}}
    serves = Good("A model serves; `degraded`: not the wished one", body)
    serves_not = Good(
        "No model can be loaded",
        body,
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        headers=("Retry-After",),
    )
    return [
        Operation(
            "get",
            "/health",
            "health",
            HEALTH,
            "Whether it serves, and how",
            good=(serves, serves_not),
            open=True,
        ),
        Operation(
            "get",
            "/health/ready",
            "ready",
            HEALTH,
            "The same, for load balancers",
            good=(serves, serves_not),
            open=True,
        ),
        Operation(
            "get",
            "/health/live",
            "live",
            HEALTH,
            "Whether the process answers at all",
            good=(Good("It does", {JSON: _ALIVE}),),
            open=True,
        ),
    ]


def _metrics() -> Operation:
    return Operation(
        "get",
        "/metrics",
        "metrics",
        HEALTH,
        "Figures of all workers, for Prometheus",
        _METRICS,
        good=(Good("The figures", {kind: {"type": "string"} for kind in _METRIC_KINDS}),),
        errors=(NotReady,),
    )


def _fields(fields: dict[str, type], required: tuple[str, ...] = ()) -> dict[str, Schema]:
    kinds: dict[type, Schema] = {
        str: {"type": "string", "minLength": 1},
        bool: {"type": "boolean"},
        float: {"type": "number", "minimum": 0, "maximum": admin.LONGEST_WATCH_SECONDS},
    }
    schema: Schema = {
        "type": "object",
        "properties": {
            name: {**kinds[kind], "description": admin.MEANINGS[name]} for name, kind in fields.items()
        },
        "additionalProperties": False,
    }
    if required:
        schema["required"] = list(required)
    return {JSON: schema, _FORM: schema}


def _changes() -> list[Operation]:
    begun: dict[str, Any] = {
        "type": "object",
        "required": ["operation", "watch"],
        "properties": {
            "operation": {
                "type": "object",
                "required": ["id", "state", "command"],
                "properties": {
                    "id": {"type": "string"},
                    "state": {"type": "string"},
                    "command": {"type": "array", "items": {"type": "string"}},
                },
            },
            "watch": {"type": "string", "description": "path of GET /admin/operations/{key}"},
        },
    }
    good = (Good("It has begun", {JSON: begun}, status=HTTPStatus.ACCEPTED, headers=("Location",)),)
    errors = (BadRequest, NotFound, RequestTimeout, TooLarge, UnsupportedMediaType, StoreError)
    described = [
        ("update", "updateModel", "Switch to a version of the store", _UPDATE, admin.UPDATE, ("version",)),
        ("rollback", "rollBackModel", "Go back to the version before", "", admin.ROLLBACK, ()),
        ("reload", "reload", "Read the settings and the wish again", "", admin.RELOAD, ()),
    ]
    return [
        Operation(
            "post",
            f"/admin/model/{path}",
            name,
            ADMIN,
            summary,
            text,
            body=_fields(fields, required),
            body_required=bool(required),
            good=good,
            errors=(*errors, UnknownVersion, OperationUnderWay),
        )
        for path, name, summary, text, fields, required in described
    ]


def _looks() -> list[Operation]:
    key = parameter("path", "key", {"type": "string", "minLength": 1}, "that a change was answered with")
    return [
        Operation(
            "get",
            "/admin/operations/{key}",
            "operation",
            ADMIN,
            "How far a change is",
            parameters=(key,),
            good=(Good("`running`, `succeeded`, `failed` or `lost`, and what it printed", {JSON: _OBJECT}),),
            errors=(NotFound,),
        ),
        Operation(
            "get",
            "/admin/models",
            "storedModels",
            ADMIN,
            "The versions of the store",
            good=(Good("The versions with what is known of them", {JSON: _OBJECT}),),
            errors=(NotFound, StoreError),
        ),
        Operation(
            "get",
            "/admin/status",
            "status",
            ADMIN,
            "What the master says",
            good=(Good("The status file", {JSON: _OBJECT}),),
            errors=(NotFound, StatusError, NotReady),
        ),
    ]
