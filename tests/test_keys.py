"""API keys: the file, what is found by a key's text, and the tool that keeps the file."""

from __future__ import annotations

import hmac
import json
import re
import resource
import subprocess
import sys
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE

from asrsvc.errors import BadArgument, KeysError, Unauthorised
from asrsvc.serving import keys, keys_tool
from asrsvc.serving.keys import Key, KeyRing, digest_of, new_secret, read_keys, write_keys


def moment(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")


def key(name: str, secret: str, **more: Any) -> Key:
    return Key(name, digest_of(secret), moment(-1), **more)


def test_a_key_has_256_random_bits_and_its_text_is_not_in_the_file(tmp_path: Path) -> None:
    secrets = {new_secret() for _ in range(50)}
    assert len(secrets) == 50
    assert all(len(secret) == len("asr-") + 43 for secret in secrets)
    secret = secrets.pop()
    write_keys(tmp_path / "keys.json", [key("ci", secret, rate=60, expires=moment(1))])
    assert secret.removeprefix("asr-") not in (tmp_path / "keys.json").read_text()
    (found,) = read_keys(tmp_path / "keys.json")
    assert (found.name, found.rate, found.concurrency) == ("ci", 60, None)


def test_a_key_is_found_by_its_text_until_it_expires(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, [key("old", "one", expires=moment(-1)), key("ci", "two", expires=moment(1))])
    ring = KeyRing(path)
    assert ring.find("two").name == "ci"
    for secret, code in (("one", "expired_api_key"), ("three", "invalid_api_key"), ("", "invalid_api_key")):
        with pytest.raises(Unauthorised) as caught:
            ring.find(secret)
        assert caught.value.code == code


def test_every_key_is_compared_over_its_whole_length_whichever_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, [key(f"k{number}", f"secret {number}") for number in range(5)])
    ring = KeyRing(path)
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    real = hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    for secret in ("secret 0", "secret 4", "wrong", "s"):
        compared.clear()
        try:
            ring.find(secret)
        except Unauthorised:
            assert secret in {"wrong", "s"}
        assert compared == [(32, 32)] * 5


def test_a_changed_file_is_read_again_and_a_broken_one_is_told_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, [key("a", "one")])
    ring = KeyRing(path)
    for content in ("{", '{"keys": [{}]}', "[]"):
        path.write_text(content)
        ring.look()
        assert ring.find("one").name == "a"
        assert ring.problem is not None
        assert str(path) in ring.problem
        assert "the keys from before are in force" in caplog.text
    path.unlink()
    ring.look()
    assert ring.problem is not None
    assert ring.find("one").name == "a"
    write_keys(path, [key("b", "two")])
    ring.look()
    assert ring.problem is None
    assert ring.find("two").name == "b"
    with pytest.raises(Unauthorised):
        ring.find("one")


def test_a_change_that_cannot_be_read_for_a_moment_is_read_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever uses up the descriptors must not keep a key that is revoked meanwhile."""
    path = tmp_path / "keys.json"
    write_keys(path, [key("a", "one")])
    ring = KeyRing(path)
    write_keys(path, [key("b", "two")])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for _ in range(3):
            assert ring.find("one").name == "a"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ring.problem is not None
    assert caplog.text.count("Too many open files") == 1
    with pytest.raises(Unauthorised):
        ring.find("one")
    assert ring.find("two").name == "b"
    assert ring.problem is None


RIGHT = {"name": "a", "sha256": "0" * 64, "created": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no file of API keys"),
        ("[" * 100_000, "is no file of API keys"),
        ('"keys"', '{"keys": […]} is right'),
        ('{"keys": {}}', '{"keys": […]} is right'),
        ('{"keys": [], "more": 1}', '{"keys": […]} is right'),
        ([1], "keys[0] must be an object"),
        ([RIGHT | {"limit": 3}], "keys[0] has an unknown field 'limit'"),
        ([{"name": "a"}], "keys[0].sha256 is 'None'"),
        ([RIGHT | {"sha256": "A" * 64}], "64 hexadecimal digits"),
        ([RIGHT | {"name": "a b"}], "keys[0].name is 'a b'"),
        ([RIGHT | {"name": "x" * 65}], "up to 64"),
        ([{k: v for k, v in RIGHT.items() if k != "created"}], "keys[0].created is missing"),
        ([RIGHT | {"created": "yesterday"}], "keys[0].created is 'yesterday'"),
        ([RIGHT | {"expires": "2026-01-01T00:00:00"}], "keys[0].expires"),
        ([RIGHT | {"expires": 5}], "keys[0].expires is '5'"),
        ([RIGHT | {"rate": True}], "keys[0].rate is 'True'"),
        ([RIGHT | {"rate": -1}], "keys[0].rate is '-1'"),
        ([RIGHT | {"concurrency": 1.5}], "keys[0].concurrency"),
        ([RIGHT, RIGHT | {"sha256": "1" * 64}], "two keys have the name a"),
        ([RIGHT, RIGHT | {"name": "b"}], "two keys have the sha256"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content if isinstance(content, str) else json.dumps({"keys": content}))
    with pytest.raises(KeysError) as caught:
        read_keys(path)
    assert said in caught.value.message
    assert str(path) in caught.value.message


def test_too_many_keys_and_too_large_a_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, [key(f"k{number}", str(number)) for number in range(keys.MOST_KEYS + 1)])
    with pytest.raises(KeysError, match="1001 keys; 1000 are the most"):
        read_keys(path)
    path.write_text(" " * (2**20 + 1))
    with pytest.raises(KeysError, match="over 1048576 bytes"):
        read_keys(path)


# The tool.


def tool(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> tuple[int, str, str]:
    code = keys_tool.main(["--file", str(path), *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_key_is_made_listed_rotated_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "keys.json"
    code, secret, _ = tool(
        capsys, path, "add", "ci", "--rate", "60", "--concurrency", "4", "--expires", "30d"
    )
    assert code == 0
    ring = KeyRing(path)
    found = ring.find(secret.strip())
    assert (found.name, found.rate, found.concurrency) == ("ci", 60, 4)
    assert found.expires is not None
    left = datetime.fromisoformat(found.expires) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)

    assert tool(capsys, path, "add", "nightly", "--expires", "2999-12-31T08:00+08:00")[0] == 0
    code, text, _ = tool(capsys, path, "list")
    assert [line.split()[0] for line in text.splitlines()] == ["NAME", "ci", "nightly"]
    assert "2999-12-31T00:00" in text
    code, text, _ = tool(capsys, path, "list", "--json")
    assert [entry["name"] for entry in json.loads(text)["keys"]] == ["ci", "nightly"]
    assert "sha256" not in text

    code, other, _ = tool(capsys, path, "rotate", "ci")
    ring.look()
    assert ring.find(other.strip()).rate == 60
    assert ring.find(other.strip()).identity == found.identity
    with pytest.raises(Unauthorised):
        ring.find(secret.strip())

    assert tool(capsys, path, "revoke", "ci")[0] == 0
    ring.look()
    with pytest.raises(Unauthorised):
        ring.find(other.strip())


# Whose jobs are whose.


def identity(path: Path, secret: str) -> str:
    return KeyRing(path).find(secret).identity


def test_a_name_that_is_given_again_is_another_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    found = set()
    for _ in range(20):
        secret = tool(capsys, path, "add", "carol")[1].strip()
        found.add(identity(path, secret))
        tool(capsys, path, "revoke", "carol")
    assert len(found) == 20
    assert all(one.startswith("carol:") for one in found)


def test_no_name_can_be_taken_for_another_keys_identity(tmp_path: Path) -> None:
    """A colon stands in no name."""
    with pytest.raises(BadArgument):
        keys_tool._add(
            tmp_path / "keys.json", Namespace(name="carol:2026-01-01T00:00:00.5+00:00", expires=None)
        )


@pytest.mark.parametrize(
    "created",
    [
        *("2026-01-01T00:00:00+00:00", "2026-01-01T00:00Z", "2026-01-01T00:00:00.123+00:00"),
        *("2026-01-01T00:00:00.123456+00:00", "2026-01-01T00:00:00.1234567891+00:00"),
    ],
)
def test_a_key_from_before_keeps_what_its_name_owned_also_with_another_secret(
    created: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, [Key("carol", digest_of("old"), created)])
    assert identity(path, "old") == "carol"
    secret = tool(capsys, path, "rotate", "carol")[1].strip()
    assert identity(path, secret) == "carol"
    tool(capsys, path, "revoke", "carol")
    secret = tool(capsys, path, "add", "carol")[1].strip()
    assert identity(path, secret) != "carol"


BEFORE = {
    "name": r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}",
    "sha256": "[0-9a-f]{64}",
    "created": None,
    "expires": None,
    "rate": None,
    "concurrency": None,
}
"""what code of before identities takes in an entry; it refuses a file with anything else"""


def test_older_code_reads_what_the_tool_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a downgrade, or beside it at a change of code: else it would serve revoked keys on."""
    path = tmp_path / "keys.json"
    tool(capsys, path, "add", "carol", "--rate", "5", "--expires", "3d")
    tool(capsys, path, "rotate", "carol")
    content = json.loads(path.read_bytes())
    assert list(content) == ["keys"]
    for entry in content["keys"]:
        assert entry.keys() <= BEFORE.keys()
        for name, pattern in BEFORE.items():
            assert pattern is None or re.fullmatch(pattern, entry[name])
        for name in ("created", "expires"):
            assert datetime.fromisoformat(entry[name]).tzinfo is not None


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "ci"), 2, "there is a key of ci"),
        (("add", "a b"), 2, "is no name"),
        (("add", "x", "--expires", "2020-01-01"), 2, "is over already"),
        (("add", "x", "--expires", "soon"), 2, "30d, or a time"),
        (("add", "x", "--expires", "99999d"), 0, ""),
        (("revoke", "nobody"), 7, "holds no key of 'nobody'"),
        (("rotate", "nobody"), 7, "api-keys list"),
    ],
)
def test_what_cannot_be_meant_is_told_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, [key("ci", "one")])
    before = path.read_bytes()
    found, _, error = tool(capsys, path, *arguments)
    assert (found, said in error) == (code, True), error
    assert code == 0 or path.read_bytes() == before


def test_a_damaged_file_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.json"
    path.write_text("precious")
    for arguments in (("add", "x"), ("list",), ("revoke", "x")):
        code, _, error = tool(capsys, path, *arguments)
        assert code == 6
        assert "is no file of API keys" in error
    assert path.read_text() == "precious"


def test_two_at_once_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    command = [sys.executable, "-m", "asrsvc.serving.keys_tool", "--file", str(path), "add"]
    running = [subprocess.Popen([*command, f"k{n}"], stdout=subprocess.DEVNULL) for n in range(6)]
    assert [one.wait(PATIENCE) for one in running] == [0] * 6
    assert {one.name for one in read_keys(path)} == {f"k{n}" for n in range(6)}


def test_without_a_file_the_tool_says_how_to_name_one(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ASR_API_KEYS", raising=False)
    monkeypatch.delenv("ASR_CONFIG", raising=False)
    assert keys_tool.main(["list"]) == 6
    assert "--file" in capsys.readouterr().err
    monkeypatch.setenv("ASR_API_KEYS", str(tmp_path / "keys.json"))
    done = subprocess.run(
        [checkout / "bin" / "api-keys", "add", "ci"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("asr-")
    assert done.stdout.strip() not in (tmp_path / "keys.json").read_text()
    assert (
        "add"
        in subprocess.run(
            [checkout / "bin" / "api-keys", "--help"], capture_output=True, text=True, check=True
        ).stdout
    )
