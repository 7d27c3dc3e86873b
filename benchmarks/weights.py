"""One set of full-size weights in the forms that different engines read.

`make_full_size` gives the published form. From it are made here, once, below var/ (git-ignored):

- the same with another bias of the blank: random weights name a token in every frame, speech in about one
  of three; reading a token costs, so the bias is set to what gives that share on the clip at hand;
- sherpa-onnx's form: the same graph and weights, with what its export script (scripts/sense-voice/
  export-onnx.py there) writes into the file's metadata: LFR, CMVN, ids of the queries; and tokens.txt;
- a store of asrsvc with that version, and its faster twins.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from asrsvc.release.bake import MakeLimits, Mode, make_if_missing
from asrsvc.release.store import Store
from asrsvc.speech.engine import ITN_QUERIES, LANGUAGE_QUERIES, Engine
from asrsvc.speech.features import FbankExtractor
from asrsvc.speech.session import MODEL_FILE
from benchmarks.full_size import ROOT, STAMP_NAME, make_full_size

PLACE: Final = ROOT / "var" / "engine-benchmark"
"""safe to delete"""
_SPOKEN: Final = 1 / 3
"""share of frames that name a token"""
_BIAS: Final = "ctc.ctc_lo.bias"
_SHERPA_FIXED: Final = {
    "lfr_window_size": 7,
    "lfr_window_shift": 6,
    "normalize_samples": 0,
    "model_type": "sense_voice_ctc",
    "version": 2,
    "lang_nospeech": 13,
    "comment": "random weights",
}


def spoken_version(samples: NDArray[np.float32], name: str) -> Path:
    """The full-size version with about one token in three frames of this sound.

    Args:
        samples: shape (n,), float32, 16 kHz.
        name: of the folder, which must differ where the sound does.
    """
    folder = PLACE / f"spoken-{name}"
    if (folder / "done").is_file():
        return folder
    source = make_full_size()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    features = FbankExtractor(source / "am.mvn").features(samples)
    (logits,) = Engine.load(source, threads=1).logits([features], ["auto"], [True])
    lead = logits[4:, 1:].max(axis=-1) - logits[4:, 0]
    model = onnx.load(source / MODEL_FILE)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == _BIAS)
    values = numpy_helper.to_array(bias).copy()
    values[0] += np.quantile(lead, 1 - _SPOKEN)
    bias.CopyFrom(numpy_helper.from_array(values, _BIAS))
    for path in source.iterdir():
        if path.name not in (MODEL_FILE, STAMP_NAME):
            shutil.copy(path, folder)
    onnx.save(model, folder / MODEL_FILE)
    (folder / "done").touch()
    return folder


def sherpa_files(version: Path) -> Path:
    """A folder with model.onnx and tokens.txt for sherpa-onnx, from a version's files."""
    folder = PLACE / f"sherpa-{version.name}"
    if (folder / "done").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokens = json.loads((version / "tokens.json").read_text("utf-8"))
    # Its reader splits lines at white space.
    lines = [f"{token if token.strip() else '<space>'} {index}\n" for index, token in enumerate(tokens)]
    (folder / "tokens.txt").write_text("".join(lines), "utf-8")
    shift, scale = (
        line.split("[")[1].strip(" ]").split()
        for line in (version / "am.mvn").read_text("utf-8").splitlines()
        if line.startswith("<LearnRateCoef>")
    )
    model = onnx.load(version / MODEL_FILE)
    metadata = {
        **_SHERPA_FIXED,
        "neg_mean": ",".join(shift),
        "inv_stddev": ",".join(scale),
        "vocab_size": len(tokens),
        **{f"lang_{name}": query for name, query in LANGUAGE_QUERIES.items()},
        "with_itn": ITN_QUERIES[True],
        "without_itn": ITN_QUERIES[False],
    }
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=str(value))
    onnx.save(model, folder / "model.onnx")
    (folder / "done").touch()
    return folder


def twin(version: Path, mode: Mode) -> Path:
    """This host's faster twin of a version, as the service makes it.

    Args:
        version: the published form.
        mode: `auto`, or `uint8` for what a processor gets on which int8 is not exact.
    """
    store = Store(PLACE / "store", command="benchmarks/engine.py")
    files = version if not (version / "done").exists() else _without_mark(version)
    kept = store.add_folder(files, version.name)
    found = make_if_missing(
        store.root, kept, mode, limits=MakeLimits(), progress=lambda text: print(text, file=sys.stderr)
    )
    if found.usable is None:
        raise SystemExit(f"{version} has no twin: {found}")
    return found.usable


def _without_mark(version: Path) -> Path:
    """A version as it would be published: links to its files, without the mark that it is whole."""
    folder = PLACE / f"{version.name}-published"
    if not folder.is_dir():
        folder.mkdir()
        for path in version.iterdir():
            if path.name != "done":
                (folder / path.name).hardlink_to(path)
    return folder
