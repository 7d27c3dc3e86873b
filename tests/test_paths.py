"""Paths with slashes too many, and targets that name a host."""

from __future__ import annotations

import pytest

from asrsvc.serving.paths import named_authority, plain_path


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


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (b"/health", None),
        (b"/?a=http://evil.example/", None),
        (b"//evil.example/health", None),
        (b"*", None),
        (b"http://localhost:7860/health", "localhost:7860"),
        (b"http://localhost", "localhost"),
        (b"HTTPS://a@localhost:80?x", "a@localhost:80"),
        (b"http://evil.example#/localhost", "evil.example"),
        (b"http:///health", ""),
        (b"ftp://[::1].evil.example/x", "[::1].evil.example"),
    ],
)
def test_a_target_in_absolute_form_names_a_host(target: bytes, named: str | None) -> None:
    assert named_authority(target) == named
