from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc import settings
from asrsvc.settings import SettingError


def write(path: Path, text: str) -> dict[str, str]:
    path.write_text(text, encoding="utf-8")
    return {"ASR_CONFIG": str(path)}


def test_every_setting_has_a_default_that_is_right() -> None:
    loaded = settings.load(environ={})
    assert set(loaded.origin.values()) == {"default"}
    assert loaded.bind == "127.0.0.1:7860"


def test_every_setting_says_what_it_means_and_its_name_is_its_fields() -> None:
    for attribute, setting in settings.declared():
        assert setting.name == f"ASR_{attribute.upper()}"
        assert setting.meaning
        assert setting.unit


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    environ = write(tmp_path / "asr.conf", "ASR_WORKERS=2\nASR_THREADS=2\nASR_BATCH_SIZE=2\n")
    environ |= {"ASR_WORKERS": "3", "ASR_THREADS": "3"}
    loaded = settings.load({"ASR_WORKERS": "4"}, environ)
    assert (loaded.workers, loaded.threads, loaded.batch_size) == (4, 3, 2)
    names = ("ASR_WORKERS", "ASR_THREADS", "ASR_BATCH_SIZE", "ASR_BIND")
    assert [loaded.origin[name] for name in names] == [
        "command line",
        "environment",
        f"file {tmp_path / 'asr.conf'}",
        "default",
    ]


def test_the_file_has_comments_blank_lines_spaces_and_quotes(tmp_path: Path) -> None:
    text = '# the team\'s own\n\n  ASR_WORKERS = 2 \nASR_BIND="192.0.2.7:80"\nASR_PUBLIC_WITHOUT_KEYS=yes\n'
    loaded = settings.load(environ=write(tmp_path / "asr.conf", text))
    assert (loaded.workers, loaded.bind) == (2, "192.0.2.7:80")


NO_ORIGINS = {
    "null": "app://obsidian.md",
    "http://localhost:*": "each origin by its whole name",
    "https://*.example.org": "each origin by its whole name",
    "chrome-extension://*": "each origin by its whole name",
    "https://app.example.org/": ": https://app.example.org is right",
    "https://app.example.org/page?x#y": ": https://app.example.org is right",
    "https://me@app.example.org": ": https://app.example.org is right",
    "https://app.example.org:443": ": https://app.example.org, or another port,",
    "http://localhost:80": ": http://localhost, or another port,",
    "http://localhost:": ": http://localhost, or another port,",
    "http://localhost:65536": ": http://localhost, or another port,",
    "https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example": ": https://xn--bcher-kva.example",
    "http://[0:0::1]": ": http://[::1]",
    "http://127.1": ": http://host",
    "http://a%20b": ": http://host",
    "localhost:3000": ": https://localhost:3000, or another scheme,",
    "my_app://home": ": https://home, or another scheme,",
    "app://": ": app://host",
    "file://server": ": file://",
    "ws://localhost:3000": ": http://localhost:3000",
    "wss://example.org": ": https://example.org",
    "https://a b": "with commas between",
}
"""what no browser sends, and what the message says of it"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ASR_WROKERS=2\n", "ASR_WROKERS"),
        ("ASR_WORKERS\n", "asr.conf:1"),
        ("ASR_WORKERS=many\n", "ASR_WORKERS='many'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_what_is_wrong(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(SettingError) as caught:
        settings.load(environ=write(tmp_path / "asr.conf", text))
    assert said in str(caught.value)
    assert "asr.conf" in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="missing.conf"):
        settings.load(environ={"ASR_CONFIG": str(tmp_path / "missing.conf")})
    (tmp_path / "binary.conf").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingError, match="binary.conf"):
        settings.load(environ={"ASR_CONFIG": str(tmp_path / "binary.conf")})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ASR_INCOMPLETE", "Refuse"),
        ("ASR_INCOMPLETE", "yes"),
        ("ASR_BIND", "7860"),
        ("ASR_BIND", ":7860"),
        ("ASR_BIND", "localhost:0"),
        ("ASR_BIND", "localhost:65536"),
        ("ASR_BIND", "::1:7860"),
        ("ASR_BIND", "unix:"),
        ("ASR_BIND", "unix:relative.sock"),
        ("ASR_STORE", "relative/store"),
        ("ASR_WORKERS", "0"),
        ("ASR_WORKERS", "2.5"),
        ("ASR_WORKERS", "²"),
        ("ASR_WORKERS", "9" * 5000),
        ("ASR_THREADS", "-1"),
        ("ASR_BATCH_SIZE", "auto"),
        ("ASR_DEVICE", "gpu"),
        ("ASR_MAX_AUDIO_SECONDS", "nan"),
        ("ASR_MAX_AUDIO_SECONDS", "inf"),
        ("ASR_LOG_LEVEL", "INFO!"),
        ("ASR_API_KEYS", "keys.json"),
        ("ASR_PUBLIC_WITHOUT_KEYS", "true"),
        ("ASR_CLIENT_RATE", "-1"),
        ("ASR_TRUSTED_PROXIES", "proxy.example.org"),
        ("ASR_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("ASR_ALLOWED_HOSTS", "asr.example.org:80"),
        ("ASR_ALLOWED_HOSTS", ","),
        ("ASR_URL_HOSTS", "https://media.example.org/path"),
        ("ASR_URL_HOSTS", "media.example.org:0"),
        ("ASR_URL_HOSTS", "media.example.org:65536"),
        ("ASR_URL_HOSTS", "media.example.org."),
        ("ASR_URL_HOSTS", "media..example.org"),
        ("ASR_URL_HOSTS", "user@media.example.org"),
        ("ASR_URL_HOSTS", "ftp://media.example.org"),
        ("ASR_URL_HOSTS", "media*.example.org"),
        ("ASR_URL_HOSTS", "10.0.0.1/8"),
        ("ASR_URL_HOSTS", "10.1"),
        ("ASR_URL_HOSTS", "0x7f.0.0.1"),
        ("ASR_URL_HOSTS", "[fd00::7"),
        ("ASR_URL_HOSTS", "[10.0.0.7]"),
        ("ASR_URL_HOSTS", "médias.example.org"),
        ("ASR_WEBHOOK_SECRET", "short"),
        ("ASR_WEBHOOK_SECRET", "whsec_no base64 at all"),
        ("ASR_WEBHOOK_SECRET", "whsec_c2hvcnQ="),
        ("ASR_WEBHOOK_SECRET", ",".join(f"secret-number-{n:05}" for n in range(4))),
        ("ASR_WEBHOOK_TIMEOUT", "0"),
        ("ASR_CORS_ORIGINS", "https://app.example.org/page"),
        ("ASR_CORS_ORIGINS", "app.example.org"),
        *(("ASR_CORS_ORIGINS", origin) for origin in NO_ORIGINS),
    ],
)
def test_a_wrong_value_is_refused_with_name_value_origin_and_what_is_right(name: str, value: str) -> None:
    with pytest.raises(SettingError) as caught:
        settings.load(environ={name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}={value!r} (environment) is wrong: ")
    assert message.endswith(" is right")


@pytest.mark.parametrize("value", ["[::1]:7860", "localhost:1", "0.0.0.0:65535", "unix:/run/asr.sock"])
def test_every_kind_of_address_is_taken(value: str) -> None:
    environ = {"ASR_BIND": value, "ASR_PUBLIC_WITHOUT_KEYS": "yes"}
    assert settings.load(environ=environ).bind == value


@pytest.mark.parametrize(
    "bind", ["0.0.0.0:80", "[::]:80", "192.168.1.2:80", "[2001:db8::1]:80", "asr.lan:80"]
)
def test_an_address_that_other_machines_reach_needs_keys_or_a_word_that_it_needs_none(bind: str) -> None:
    with pytest.raises(
        SettingError, match=r"can be reached from other machines, and ASR_API_KEYS .*bin/api-keys"
    ):
        settings.load({"ASR_BIND": bind}, {})
    settings.load({"ASR_BIND": bind, "ASR_API_KEYS": "/etc/asr/keys.json"}, {})
    settings.load({"ASR_BIND": bind, "ASR_PUBLIC_WITHOUT_KEYS": "yes"}, {})
    with pytest.raises(
        SettingError, match=r"can be reached from other machines, and there is no ASR_ADMIN_TOKEN"
    ):
        settings.load({"ASR_OPS_BIND": bind}, {})
    settings.load({"ASR_OPS_BIND": bind, "ASR_ADMIN_TOKEN": "of-16-characters"}, {})


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:80", "127.3.2.1:80", "[::1]:80", "localhost:80", "unix:/run/asr.sock"]
)
def test_an_address_of_this_machine_alone_needs_no_keys(bind: str) -> None:
    assert settings.load({"ASR_BIND": bind, "ASR_OPS_BIND": bind}, {}).api_keys is None


@pytest.mark.parametrize(
    "origin",
    [
        *("app://obsidian.md", "tauri://localhost", "capacitor://localhost", "ionic://localhost", "file://"),
        *("chrome-extension://abcdefghijklmnop", "moz-extension://0a-1b", "http://localhost:5173", "*"),
        *("http://[::1]:3000", "http://127.0.0.1", "https://localhost.", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_may_have_any_scheme(origin: str) -> None:
    assert settings.load({"ASR_CORS_ORIGINS": origin.upper()}, {}).cors_origins == (origin,)


@pytest.mark.parametrize(("origin", "right"), NO_ORIGINS.items())
def test_an_origin_that_would_match_nothing_is_refused_with_one_that_would(origin: str, right: str) -> None:
    with pytest.raises(SettingError) as caught:
        settings.load({"ASR_CORS_ORIGINS": f"https://app.example.org,{origin}"}, {})
    message = str(caught.value)
    assert right in message
    assert ",," not in message
    assert message.endswith(" is right")


def test_a_list_is_taken_apart_at_its_commas() -> None:
    loaded = settings.load({"ASR_TRUSTED_PROXIES": "10.0.0.0/8, ::1,unix,unix", "ASR_CORS_ORIGINS": "*"}, {})
    assert loaded.trusted_proxies == ("10.0.0.0/8", "::1", "unix")
    assert loaded.cors_origins == ("*",)
    assert loaded.allowed_hosts == ()
    lines = settings.report(loaded).splitlines()
    shown = {line.split()[0]: line.split()[1] for line in lines}
    assert shown["ASR_TRUSTED_PROXIES"] == "10.0.0.0/8,::1,unix"
    assert shown["ASR_API_KEYS"] == shown["ASR_ALLOWED_HOSTS"] == "none"
    assert shown["ASR_PUBLIC_WITHOUT_KEYS"] == "no"


def test_names_of_other_programs_in_the_environment_are_left_alone() -> None:
    settings.load(environ={"ASR_PYTHON": "python3.12", "ASR_OF_SOMEBODY_ELSE": "1"})


def test_an_empty_variable_counts_as_not_set() -> None:
    assert settings.load(environ={"ASR_WORKERS": ""}).origin["ASR_WORKERS"] == "default"


def test_auto_means_one_worker_a_core_and_the_cores_shared_out_as_threads() -> None:
    loaded = settings.load(environ={})
    there = settings.share_out(settings.usable_cores(), settings.usable_memory())
    assert (loaded.worker_count(), loaded.thread_count()) == (there.workers, there.threads)
    assert settings.load(environ={"ASR_WORKERS": "1"}).thread_count() == settings.usable_cores()


@pytest.mark.parametrize(
    ("cores", "gib", "wished", "chosen"),
    [
        (2, 24, (None, None), (2, 1)),
        (64, 256, (None, None), (64, 1)),
        (1, 1, (None, None), (1, 1)),
        (4, 2, (None, None), (1, 4)),  # no memory for two and one more
        (8, 4, (None, None), (2, 4)),  # for three: but two use all cores
        (9, 4, (None, None), (3, 3)),
        (8, 64, (None, 2), (4, 2)),
        (8, 64, (3, None), (3, 2)),
        (8, 64, (3, 4), (3, 4)),
        (2, 64, (None, 16), (1, 16)),
    ],
)
def test_cores_are_shared_out_as_far_as_there_is_memory(
    cores: int, gib: int, wished: tuple[int | None, int | None], chosen: tuple[int, int]
) -> None:
    layout = settings.share_out(cores, gib * 2**30, *wished)
    assert (layout.workers, layout.threads) == chosen
    assert layout.reason.startswith(f"{chosen[0]} workers (")
    assert ("more than the" in layout.reason) == (chosen[0] * chosen[1] > cores)
    assert ("ASR_WORKERS says" in layout.reason, "ASR_THREADS says" in layout.reason) == (
        wished[0] is not None,
        wished[1] is not None,
    )


@given(st.integers(1, 256), st.integers(2**28, 2**40))
def test_what_is_chosen_uses_no_more_than_there_is(cores: int, memory: int) -> None:
    layout = settings.share_out(cores, memory)
    assert 1 <= layout.workers * layout.threads <= cores
    needed = 2**30 + (layout.workers + 1) * 768 * 2**20
    assert layout.workers == 1 or needed <= memory


def test_the_report_names_every_setting_with_its_value_and_origin() -> None:
    lines = settings.report(settings.load({"ASR_WORKERS": "3"}, {})).splitlines()
    assert len(lines) == len(settings.declared()) + 1
    assert lines[-1].startswith("3 workers (3 as ASR_WORKERS says) of ")
    (line,) = (line for line in lines if line.startswith("ASR_WORKERS "))
    assert " 3 " in line
    assert "command line" in line


def test_the_environment_for_another_program_holds_the_command_line_and_an_absolute_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASR_BATCH_SIZE", "2")
    monkeypatch.setenv("ASR_WORKERS", "2")
    monkeypatch.setenv("ASR_CONFIG", "asr.conf")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "asr.conf", "ASR_WORKERS=5\nASR_THREADS=4\n")
    environ = settings.environment({"ASR_WORKERS": "3"})
    monkeypatch.chdir("/")
    loaded = settings.load(environ=environ)
    assert (loaded.workers, loaded.threads, loaded.batch_size) == (3, 4, 2)


def test_one_setting_can_be_read_whatever_is_wrong_with_the_others(tmp_path: Path) -> None:
    environ = write(tmp_path / "asr.conf", "ASR_WORKERS=many\nASR_STORE=/in/file\nASR_UNKNOWN=1\n")
    assert settings.value("ASR_STORE", environ) == Path("/in/file")
    assert settings.value("ASR_STORE", {**environ, "ASR_STORE": "/in/environment"}) == Path("/in/environment")
    assert settings.value("ASR_WORKERS", {}) is None
    assert settings.value("ASR_STORE", {}) == settings.load(environ={}).store
    with pytest.raises(SettingError, match="ASR_WORKERS='many'"):
        settings.value("ASR_WORKERS", environ)
    assert settings.value("ASR_STORE", {"ASR_STORE": "/x", "ASR_CONFIG": "/not/there"}) == Path("/x")


def test_names_of_listeners_are_those_that_systemd_says() -> None:
    assert settings.listener_names({"LISTEN_FDNAMES": "api:ops"}) == ("api", "ops")
    assert settings.listener_names({"LISTEN_FDNAMES": ""}) == ()
    assert settings.listener_names({}) == ()


def test_the_pointers_are_in_the_store_unless_hosts_share_it(tmp_path: Path) -> None:
    store = {"ASR_STORE": str(tmp_path)}
    assert settings.load(environ=store).store_pointers == tmp_path
    assert settings.value("ASR_STORE_POINTERS", store) == tmp_path
    each = {**store, "ASR_STORE_POINTERS": "host"}
    assert settings.load(environ=each).store_pointers == tmp_path / "pointers" / socket.gethostname()
    one = {**store, "ASR_STORE_POINTERS": str(tmp_path / "pointers" / "asr-1")}
    assert settings.value("ASR_STORE_POINTERS", one) == tmp_path / "pointers" / "asr-1"


@pytest.mark.parametrize(
    "folder", ["/elsewhere", "{store}/versions", "{store}/pointers/a/b", "{store}/pointers/.."]
)
def test_pointers_that_other_hosts_would_not_see_are_refused(tmp_path: Path, folder: str) -> None:
    environ = {"ASR_STORE": str(tmp_path), "ASR_STORE_POINTERS": folder.format(store=tmp_path)}
    for read in (
        lambda: settings.load(environ=environ),
        lambda: settings.value("ASR_STORE_POINTERS", environ),
    ):
        with pytest.raises(SettingError, match="host, or a folder in .*/pointers is right"):
            read()


def test_the_report_does_not_print_the_token() -> None:
    token = "a-secret-of-some-length"
    text = settings.report(settings.load({"ASR_ADMIN_TOKEN": token}, {}))
    assert token not in text
    with pytest.raises(SettingError, match="16 to 256 characters"):
        settings.load({"ASR_ADMIN_TOKEN": "short"}, {})


@pytest.mark.parametrize(
    ("text", "names"), [("", ()), ("a", ("a",)), ("whisper-1, org/x:2", ("whisper-1", "org/x:2"))]
)
def test_names_of_models_stand_between_commas(text: str, names: tuple[str, ...]) -> None:
    assert settings.load({"ASR_MODEL_ALIASES": text}, {}).model_aliases == names


@pytest.mark.parametrize("text", ["a,,b", "a b", ",", "-a", "<script>"])
def test_what_names_no_model_is_refused(text: str) -> None:
    with pytest.raises(settings.SettingError, match="ASR_MODEL_ALIASES"):
        settings.load({"ASR_MODEL_ALIASES": text}, {})


def test_a_webhook_secret_is_never_printed_and_two_may_be_in_force() -> None:
    old, new = "an-old-secret-of-22-ch", "whsec_" + "A" * 32
    loaded = settings.load({"ASR_WEBHOOK_SECRET": f"{new}, {old}"}, {})
    assert loaded.webhook_secret == (new, old)
    text = settings.report(loaded)
    assert old not in text
    assert new not in text
