"""pull, verify and list as an operator runs them: output, exit codes, what is said of a failure."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hub import Hub, model_files, packed, running_hub, size_of, wait_until
from stores import add, point, served
from waiting import PATIENCE

from asrsvc.release.store import Store

FILES = model_files()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as found:
        found.repositories["org/model"] = dict(FILES)
        yield found


class Tool:
    """The tool, with a store of its own and no service."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.store = Store(folder / "store")
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("ASR_", "HF_", "PYTHON"))}
        self.environ |= {
            "ASR_STORE": str(self.store.root),
            "ASR_RUNTIME_DIR": str(folder / "run"),
            "PYTHONPATH": str(checkout),
        }

    def start(self, *arguments: str | Path, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "asrsvc.release.cli", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env={**self.environ, **more}, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=2 * PATIENCE)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def tool(tmp_path: Path, checkout: Path) -> Tool:
    return Tool(tmp_path, checkout)


def failed(done: subprocess.CompletedProcess[str], code: int, what: str, then: str) -> None:
    assert done.returncode == code, done.stderr
    first, second, third = done.stderr.splitlines()[-3:]
    assert re.match(f"asrsvc: .*{what}", first), first
    assert second.startswith("serving now: nothing; the next start ")
    assert re.match(f"next: .*{then}", third), third


def test_pull_prints_what_is_in_the_store_now(tool: Tool, hub: Hub) -> None:
    done = tool.run("pull", "hf:org/model", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    version_id = f"model-{sha256(FILES['model_quant.onnx']).hexdigest()[:8]}"
    assert re.fullmatch(rf"{version_id} is in the store \(2\d\.\d KiB, [\d.]+ s\)\n", done.stdout)
    assert "model_quant.onnx: 19.5 KiB, whole" in done.stderr
    again = tool.run("pull", "modelscope:org/model", "--json", ASR_MODELSCOPE_ENDPOINT=hub.url + "/")
    content = json.loads(again.stdout)
    assert (content["version"], content["new"]) == (version_id, False)
    assert content["source"] == "hf:org/model"
    assert set(content["files"]) == set(FILES)


SNEAKY = "no\x1b[2J\x9b1m\u202eevil\u2028serving now: all is well\r\nnext: \u200f\u061c"


def test_a_hubs_words_control_no_terminal_and_make_no_lines(tool: Tool, hub: Hub) -> None:
    refusal = json.dumps({"Success": False, "Message": SNEAKY}).encode()
    hub.fail("repo/files", body=refusal, header={"Content-Type": "application/json"})
    for form in ([], ["--json"]):
        done = tool.run("pull", "modelscope:org/model", *form, ASR_MODELSCOPE_ENDPOINT=hub.url)
        said = done.stderr + done.stdout
        assert said.replace("\n", "").isprintable(), ascii(said)
        failed(
            done, 20, r"org/model@master cannot be listed: no\\x1b\[2J\\x9b1m\\u202eevil\\u2028serving", ""
        )
        if form:
            assert SNEAKY in json.loads(done.stdout)["error"]["message"]


def test_pull_of_a_folder_needs_no_packages(tool: Tool, checkout: Path, embedded_model: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c"]
    code = f"import sys; sys.path.insert(0, {str(checkout)!r}); from asrsvc.release.cli.main import main\n"
    code += "sys.exit(main(sys.argv[1:]))"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [*command, code, *arguments]
        return subprocess.run(
            whole, env=tool.environ, capture_output=True, text=True, timeout=2 * PATIENCE, check=False
        )

    for arguments in (["--help"], ["pull", "--help"], ["list"], ["pull", str(embedded_model)]):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    (version,) = tool.store.versions()
    assert run("verify", version.id).returncode == 0
    done = run("pull", "hf:a/b")
    failed(done, 26, "httpx is not installed, which downloads need: bin/serve installs it", "bin/serve")


@pytest.mark.parametrize("hub_kind", ["modelscope", "hf"])
def test_a_real_model_from_a_hub_is_the_same(
    tool: Tool, hub: Hub, embedded_model: Path, hub_kind: str
) -> None:
    files = {path.name: path.read_bytes() for path in embedded_model.iterdir()}
    hub.repositories["iic/nano"] = files
    hub.fail("storage /blob/iic/nano/model_quant.onnx", cut=3_000_001, times=1)
    endpoint = {"ASR_MODELSCOPE_ENDPOINT": hub.url, "ASR_HF_ENDPOINT": hub.url}
    done = tool.run("pull", f"{hub_kind}:iic/nano@v1", "--name", "nano", **endpoint)
    assert done.returncode == 0, done.stderr
    assert "model_quant.onnx: goes on at 2.9 MiB" in done.stderr
    (version,) = tool.store.versions()
    assert {p.name: p.read_bytes() for p in version.path.iterdir() if p.name != "manifest.json"} == files
    assert tool.run("verify", version.id).returncode == 0


def test_pull_with_digests(tool: Tool, hub: Hub) -> None:
    hub.plain["/m.tar.gz"] = packed(FILES)
    source = f"{hub.url}/m.tar.gz"
    good = f"am.mvn={sha256(FILES['am.mvn']).hexdigest()}"
    done = tool.run("pull", source, "--sha256", good, "--sha256", f"config.yaml={'0' * 64}")
    failed(done, 22, "config.yaml has the SHA-256 .*, not 000", "the same again; if it stays wrong")
    failed(tool.run("pull", source, "--sha256", "am.mvn"), 2, "--sha256 am.mvn is wrong: FILE=HEX", "--help")
    both = (good, f"am.mvn={'0' * 64}")
    failed(tool.run("pull", source, "--sha256", both[0], "--sha256", both[1]), 2, "once for each file", "")
    assert tool.run("pull", source, "--sha256", good).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "what", "then"),
    [
        (["pull", "nowhere"], 2, "'nowhere' is no folder that can be read", "--help"),
        (["pull", "hf:a"], 2, "hf:a is no repository", "--help"),
        (["pull", ".", "--name", "../x"], 2, "cannot name a version", "--help"),
        (["pull", "/usr"], 20, "/usr holds no whole model", "another source"),
        (["pull", "modelscope:org/none"], 20, "404: it does not exist", "another source"),
        (["pull", "hf:org/none"], 20, "404: it does not exist", "another source"),
        (["pull", "modelscope:org/model", "--timeout", "0"], 21, "did not end within 0 s", "goes on where"),
        (["verify", "gone"], 24, "versions/gone is not there", "swap-model list"),
        (["verify", "../versions"], 24, "is no version id", "swap-model list"),
        (["verify", ""], 24, "is no version id", "swap-model list"),
        (["verify", ".."], 24, "is no version id", "swap-model list"),
        (["verify", "current"], 24, "store/current is not there", "swap-model list"),
    ],
)
def test_a_failure_says_what_what_serves_and_what_next(
    tool: Tool, hub: Hub, *, arguments: list[str], code: int, what: str, then: str
) -> None:
    endpoint = {"ASR_MODELSCOPE_ENDPOINT": hub.url, "ASR_HF_ENDPOINT": hub.url}
    failed(tool.run(*arguments, **endpoint), code, what, then)
    done = tool.run(*arguments, "--json", **endpoint)
    assert json.loads(done.stdout)["error"]["exit_code"] == code
    assert tool.store.versions() == []


@pytest.mark.parametrize(
    "text", ["http://example.com", "example.com", "https://a b", "https://a?b=c", "ftp://a"]
)
def test_a_wrong_endpoint_is_told(tool: Tool, text: str) -> None:
    done = tool.run("pull", "hf:org/model", HF_ENDPOINT=text)
    failed(done, 78, r"ASR_HF_ENDPOINT='.*' \(default\) is wrong: https://host", "--check")


def test_verify_names_each_file_that_differs(tool: Tool) -> None:
    version = add(tool.store, "v")
    done = tool.run("verify", version.id)
    assert done.stdout.startswith(f"{version.id}: 5 files, ")
    point(tool.store, "current", version)
    assert tool.run("verify", "current").stdout == done.stdout
    (version.path / "am.mvn").unlink()
    (version.path / "tokens.json").unlink()
    (version.path / "tokens.json").write_text("other")
    done = tool.run("verify", version.id)
    failed(done, 23, "am.mvn: is missing; .*tokens.json: differs", "swap-model list")
    result = json.loads(tool.run("verify", version.id, "--json").stdout)
    assert result["error"]["code"] == "version_damaged"
    assert [(f["file"], f["kind"]) for f in result["error"]["faults"]] == [
        ("am.mvn", "missing"),
        ("tokens.json", "differs"),
    ]


def test_list_shows_what_is_known_of_each_version(tool: Tool) -> None:
    assert tool.run("list").stdout == f"{tool.store.root} holds no version\n"
    a, b, c = served(tool.store, "a"), add(tool.store, "b"), add(tool.store, "c")
    point(tool.store, "current", a)
    point(tool.store, "next", b)
    point(tool.store, "previous", "versions/gone")
    tool.store.records.note_trial(b.id, {"passed": False, "reason": "slow"})
    tool.store.records.note_refused(b.id, "NaN")
    (c.path / "am.mvn").unlink()
    done = tool.run("list")
    assert done.returncode == 0, done.stderr
    head, *rows, problem = done.stdout.splitlines()
    assert head.split() == ["VERSION", "SIZE", "POINTERS", "TRIAL", "LAST", "SERVED", "STORED", "SOURCE"]
    assert re.match(rf"{a.id} +\d+ B|\d\.\d KiB +current +- +20", rows[0])
    assert re.match(rf"{b.id} .* next +failed +- ", rows[1])
    assert rows[2].endswith("am.mvn is missing")
    assert problem.startswith("problem: ")
    assert "previous points to versions/gone" in problem
    found = json.loads(tool.run("list", "--json").stdout)
    by_id = {row["version"]: row for row in found["versions"]}
    assert by_id[a.id]["pointers"] == ["current"]
    assert by_id[a.id]["last_served"]
    assert by_id[a.id]["size"] > 100
    assert by_id[b.id]["trial"]["reason"] == "slow"
    assert by_id[b.id]["refused"]["reason"] == "NaN"
    assert by_id[b.id]["source"].endswith("source of b")
    assert "am.mvn is missing" in by_id[c.id]["problem"]
    assert len(found["problems"]) == 1


def test_an_interrupted_pull_says_that_it_can_go_on(tool: Tool, hub: Hub) -> None:
    hub.fail("storage", cut=100, hold=threading.Event(), times=1)
    process = tool.start("pull", "modelscope:org/model", ASR_MODELSCOPE_ENDPOINT=hub.url)
    parts = "staging/*/parts/*.part"
    wait_until(lambda: 100 in [size_of(path) for path in tool.store.root.glob(parts)])
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; the same again goes on where it stopped"
    assert "Traceback" not in err
    hub.log.clear()
    assert tool.run("pull", "modelscope:org/model", ASR_MODELSCOPE_ENDPOINT=hub.url).returncode == 0
    assert [request.range for request in hub.asked("", storage=True)] == ["bytes=100-"]
    assert not (tool.store.root / "staging").exists()


def test_a_terminal_gets_a_bar(tool: Tool, hub: Hub) -> None:
    hub.repositories["org/model"] = model_files(size=4200)
    slow = hub.fail("storage", trickle=0.05, cut=4000, times=1)  # until there is a bar
    main, other = pty.openpty()
    command = [sys.executable, "-P", "-m", "asrsvc.release.cli", "pull", "hf:org/model"]
    with subprocess.Popen(
        command, env={**tool.environ, "HF_ENDPOINT": hub.url}, stdout=subprocess.PIPE, stderr=other
    ) as process:
        os.close(other)
        said = b""
        try:
            while block := os.read(main, 4096):
                said += block
                if b"] model_quant.onnx: " in said:
                    slow.trickle = 0
        except OSError:  # the other end is closed
            pass
        os.close(main)
    assert process.returncode == 0
    assert re.search(rb"\r\[[#.]{24}\] model_quant.onnx: [\d.]+ (?:B|KiB) of 4.1 KiB, \d+ %", said), said
    assert b"\x1b[K" in said
