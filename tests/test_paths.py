"""Paths with slashes too many."""

from __future__ import annotations

import pytest

from asrsvc.serving.paths import plain_path


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/v1/audio/transcriptions", "/v1/audio/transcriptions"),
        ("/v1/audio/transcriptions/", "/v1/audio/transcriptions"),
        ("/v1/audio/transcriptions///", "/v1/audio/transcriptions"),
        ("//v1/audio/transcriptions", "/v1/audio/transcriptions"),
        ("/v1//audio//transcriptions/", "/v1/audio/transcriptions"),
        ("///api//jobs/abc//events/", "/api/jobs/abc/events"),
        ("/health/", "/health"),
        ("/admin/status/", "/admin/status"),
        # Only in the two APIs does a doubled slash mean nothing; elsewhere the access rules see it.
        ("//health", "//health"),
        ("//admin/status", "//admin/status"),
        ("/admin//status", "/admin//status"),
        ("/v1x//a", "/v1x//a"),
        # A slash that was written as %2F is part of a name.
        ("/health%2F", "/health/"),
        ("/%2Fv1%2Fmodels", "//v1/models"),
        ("/v1/models/a%2F%2Fb/", "/v1/models/a//b"),
        ("/v1/models/%E4%B8%AD", "/v1/models/\N{CJK UNIFIED IDEOGRAPH-4E2D}"),
        ("*", "*"),
    ],
)
def test_slashes_of_badly_joined_addresses_mean_nothing(raw: str, path: str) -> None:
    assert plain_path(raw.encode()) == path
