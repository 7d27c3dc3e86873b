"""A version's folder: whatever does not fit is refused, and the message names the file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from broken_models import NANO, OUTPUTS, copy_of_nano, edit_network, set_weight, write_network
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from asrsvc.errors import InferenceFailed, ModelError
from asrsvc.speech.features import FbankExtractor
from asrsvc.speech.model import DEFAULT_MAX_SPAN_SECONDS, Model
from asrsvc.speech.session import MODEL_FILE

BPE = "chn_jpn_yue_eng_ko_spectok.bpe.model"
CONFIG = (NANO / "config.yaml").read_text("utf-8")
CMVN = (NANO / "am.mvn").read_text("utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_of_nano(tmp_path / "version")


def load(folder: Path) -> Model:
    return Model.load(folder, version="nano-1", threads=1)


def refusal(folder: Path) -> str:
    """What is wrong with the folder, behind the path of the file that is named."""
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.message.startswith(f"{folder}/")
    return caught.value.message.removeprefix(f"{folder}/")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def test_the_embedded_model_loads() -> None:
    model = load(NANO)
    assert model.version == "nano-1"
    assert model.max_span_seconds == 8.0
    assert model.engine.vocabulary_size == 1307


@pytest.mark.parametrize("name", [MODEL_FILE, "am.mvn", "config.yaml", "tokens.json"])
def test_a_missing_file_is_refused_by_name(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert refusal(folder).startswith(f"{name}: ")


@pytest.mark.parametrize("name", [MODEL_FILE, "am.mvn", "config.yaml", "tokens.json", BPE])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\0" * 4096], ids=["empty", "noise", "zeros"])
def test_a_file_that_holds_something_else_is_refused_by_name(content: bytes, name: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    assert refusal(folder).startswith(f"{name}: ")


@pytest.mark.parametrize("name", [MODEL_FILE, "am.mvn", "tokens.json", BPE])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_by_name(share: float, name: str, folder: Path) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * share)])
    assert refusal(folder).startswith(f"{name}: ")


@pytest.mark.parametrize("name", [MODEL_FILE, "am.mvn", "config.yaml", "tokens.json", BPE])
def test_a_folder_in_the_place_of_a_file_is_refused_by_name(name: str, folder: Path) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    assert refusal(folder).startswith(f"{name}: ")


def test_no_vocabulary_is_refused(folder: Path) -> None:
    (folder / BPE).unlink()
    with pytest.raises(ModelError, match=rf"^{folder}: holds 0 files \*\.bpe\.model; exactly one is right$"):
        load(folder)


def test_two_vocabularies_are_refused(folder: Path) -> None:
    (folder / "other.bpe.model").write_bytes((folder / BPE).read_bytes())
    with pytest.raises(ModelError, match=rf"^{folder}: holds 2 files \*\.bpe\.model; exactly one is right$"):
        load(folder)


def test_a_network_of_another_vocabulary_is_refused(folder: Path) -> None:
    logits = (TensorProto.FLOAT, ["B", "L", 25055])
    write_network(folder, outputs={**OUTPUTS, "ctc_logits": logits}, reshape=True)
    assert refusal(folder) == f"{BPE}: has 1307 pieces; the network has 25055 outputs"


@pytest.mark.parametrize("change", [-1, 1])
def test_a_list_of_tokens_of_another_length_is_refused(change: int, folder: Path) -> None:
    tokens = json.loads((folder / "tokens.json").read_text("utf-8"))
    (folder / "tokens.json").write_text(json.dumps([*tokens, "x"][: len(tokens) + change]))
    expected = f"tokens.json: lists {1307 + change} tokens; the network has 1307 outputs"
    assert refusal(folder) == expected


@pytest.mark.parametrize("content", ["{}", "null", '"tokens"', "[" * 100_000], ids=lambda text: text[:8])
def test_tokens_that_are_no_list_are_refused(content: str, folder: Path) -> None:
    (folder / "tokens.json").write_text(content)
    assert refusal(folder).startswith("tokens.json: ")


def test_statistics_of_fewer_values_are_refused(folder: Path) -> None:
    lines = [
        " ".join([*line.split()[:3], *line.split()[3 : 3 + 80], "]"])
        if line.startswith("<LearnRateCoef>")
        else line
        for line in CMVN.splitlines()
    ]
    (folder / "am.mvn").write_text("\n".join(lines))
    assert refusal(folder) == "am.mvn: holds 80 values; 560 finite ones are right"


@pytest.mark.parametrize("value", ["nan", "inf", "none", "1,5"])
def test_statistics_that_are_no_finite_numbers_are_refused(value: str, folder: Path) -> None:
    first = next(line for line in CMVN.splitlines() if line.startswith("<LearnRateCoef>")).split()[3]
    (folder / "am.mvn").write_text(CMVN.replace(first, value, 1))
    assert refusal(folder).startswith("am.mvn: ")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_statistics_that_are_cut_anywhere_are_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Behind the last bracket lies nothing that is needed."""
    path = tmp_path_factory.mktemp("cut") / "am.mvn"
    path.write_text(CMVN[: data.draw(st.integers(0, CMVN.rindex("]") - 1))])
    with pytest.raises(ModelError, match="am.mvn: "):
        FbankExtractor(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lfr_m: 7", "lfr_m: 5", "frontend_conf.lfr_m is 5; 7 is supported"),
        ("lfr_n: 6", "lfr_n: 1", "frontend_conf.lfr_n is 1; 6 is supported"),
        ("n_mels: 80", "n_mels: 128", "frontend_conf.n_mels is 128; 80 is supported"),
        ("fs: 16000", "fs: 8000", "frontend_conf.fs is 8000; 16000 is supported"),
        ("window: hamming", "window: povey", "frontend_conf.window is 'povey'; 'hamming' is supported"),
        ("frame_shift: 10", "frame_shift: null", "frontend_conf.frame_shift is None; 10 is supported"),
    ],
)
def test_another_front_end_is_refused(old: str, new: str, message: str, folder: Path) -> None:
    replace(folder / "config.yaml", old, new)
    assert refusal(folder) == f"config.yaml: {message}"


@pytest.mark.parametrize(
    "value", ["0", "0.99", "60.1", "-8", ".nan", ".inf", "eight", "'8'", "true", "null", "[8]", "{}"]
)
def test_a_longest_span_that_makes_no_sense_is_refused(value: str, folder: Path) -> None:
    replace(folder / "config.yaml", "max_span_seconds: 8", f"max_span_seconds: {value}")
    message = refusal(folder)
    assert message.startswith("config.yaml: max_span_seconds is ")
    assert message.endswith("; a number from 1 to 60 is right")


@pytest.mark.parametrize(("value", "seconds"), [("1", 1.0), ("60", 60.0), ("12.5", 12.5)])
def test_a_longest_span_may_be_1_to_60_seconds(value: str, seconds: float, folder: Path) -> None:
    replace(folder / "config.yaml", "max_span_seconds: 8", f"max_span_seconds: {value}")
    assert load(folder).max_span_seconds == seconds


def test_a_config_that_does_not_say_the_longest_span_means_30_seconds(folder: Path) -> None:
    """What is published says nothing of it."""
    replace(folder / "config.yaml", "max_span_seconds: 8\n", "")
    assert load(folder).max_span_seconds == DEFAULT_MAX_SPAN_SECONDS == 30.0


@pytest.mark.parametrize(
    "content",
    [
        "- a\n- list\n",
        "just text",
        "a: [1, 2",
        "a: b: c",
        "\ta: 1",
        "a: !!python/object:os.system {}",
        "a: &a [*a, *b]",
        "a: &a 1",
        "a: *a",
        "a: !mine 1",
        "a: {<<: {b: 1}}",
        "a: 1\na: 2",
        "a: 1\n---\nb: 2",
        "[" * 21 + "]" * 21,
        "[" + "a," * 5_000 + "]",
        "a: " + "x" * 2**16,
        "? {a: 1}\n: 2",
        "[" * 20_000,
        "frontend_conf: [1, 2]",
        "frontend_conf: WavFrontend",
    ],
    ids=lambda text: text[:12],
)
def test_a_damaged_config_is_refused(content: str, folder: Path) -> None:
    (folder / "config.yaml").write_text(content)
    assert refusal(folder).startswith("config.yaml: ")


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=200))
def test_a_config_of_noise_is_refused_or_says_nothing(
    noise: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It is read first: the folder holds nothing else, so that loading always fails by name."""
    folder = tmp_path_factory.mktemp("noise")
    (folder / "config.yaml").write_bytes(noise)
    assert refusal(folder).startswith(("config.yaml: ", "am.mvn: "))


PUBLISHED = Path(__file__).resolve().parent / "data" / "published"


def test_the_published_files_are_read_as_they_are(folder: Path) -> None:
    for name in ("config.yaml", "am.mvn"):
        (folder / name).write_bytes((PUBLISHED / name).read_bytes())
    assert load(folder).max_span_seconds == DEFAULT_MAX_SPAN_SECONDS


LARGE = {
    "config.yaml": ("#" * (2**16 + 1), "has more than 65536 bytes"),
    "am.mvn": ("1 " * 2**17 + "x", "has 262145 bytes; 262144 is the limit"),
    "tokens.json": (" " * (2**22 + 1), "has more than 4194304 bytes"),
    BPE: ("x" * (2**23 + 1), "has 8388609 bytes; 8388608 is the limit"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_file_of_too_many_bytes_is_refused_by_name(name: str, folder: Path) -> None:
    content, says = LARGE[name]
    (folder / name).write_text(content)
    message = refusal(folder)
    assert message.startswith(f"{name}: ")
    assert says in message


@pytest.mark.parametrize("name", ["am.mvn", "config.yaml", "tokens.json", BPE])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_in_the_place_of_a_file_is_refused_by_name(
    kind: str, name: str, folder: Path
) -> None:
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    message = refusal(folder)
    if name == BPE:
        assert message.startswith(f"{name}: ")
    assert "is no plain file" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" + ",".join(["1"] * 1307) + "]", "lists a token that is no text"),
        ("[" * 40 + "]" * 40, "has more than 32 levels"),
        ("[" + "[]," * 2**18 + "1]", "has more than 262144 values"),
        ('{"a": 1, "a": 2}', "has 'a' twice"),
        ("[" + "9" * 5000 + "]", "has a number of 5000 digits"),
        ("[NaN]", "has NaN"),
    ],
    ids=lambda text: text[:12],
)
def test_tokens_that_cost_too_much_are_refused_by_name(content: str, says: str, folder: Path) -> None:
    (folder / "tokens.json").write_text(content)
    assert refusal(folder).startswith(f"tokens.json: {says}")


# Whatever a path of external data leads to, it is no part of the version.
OUTSIDE = ["../outside.bin", "../../../../../../etc/passwd", "/etc/passwd", "link.bin", "/dev/zero"]


@pytest.mark.parametrize("location", OUTSIDE)
def test_weights_outside_of_the_folder_are_refused(location: str, folder: Path) -> None:
    target = folder.parent / "outside.bin"
    target.write_bytes(bytes(2**16))
    (folder / "link.bin").symlink_to(target)

    def move(model: onnx.ModelProto) -> None:
        tensor = next(one for one in model.graph.initializer if len(one.raw_data) > 1024)
        size = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    edit_network(folder, move)
    message = refusal(folder)
    assert message.startswith(f"{MODEL_FILE}: ")
    assert "initializer" in message


def test_a_model_that_gives_nan_fails_when_it_warms_up(folder: Path) -> None:
    edit_network(folder, set_weight("ctc.ctc_lo.bias", np.nan))
    with pytest.raises(InferenceFailed, match="not finite"):
        load(folder)


def test_a_gpu_that_is_not_there_is_refused_with_what_to_install() -> None:
    with pytest.raises(ModelError, match="install onnxruntime-gpu, or set ASR_DEVICE=cpu"):
        Model.load(NANO, version="nano-1", threads=1, device="cuda")
