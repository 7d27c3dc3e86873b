"""The published model: where it is, and what its files must be.

Sizes and digests of SenseVoiceSmall's int8 export, ModelScope iic/SenseVoiceSmall-onnx at the
revision below. They are those that installers of other projects pin, written down independently of
each other and of us; a pull compares them with what the hub says, and with what it sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from asrsvc.release.manifest import MODEL_FILE, FileRecord
from asrsvc.release.sources import Hub

VOCABULARY_FILE: Final = "chn_jpn_yue_eng_ko_spectok.bpe.model"
VOCABULARY_HUB: Final = Hub("modelscope", "iic/SenseVoiceSmall", "master")
"""the repository of the exported model lacks the vocabulary; this one has it"""

FILES: Final[Mapping[str, FileRecord]] = MappingProxyType(
    {
        "model_quant.onnx": FileRecord(
            241_216_270, "21dc965f689a78d1604717bf561e40d5a236087c85a95584567835750549e822"
        ),
        "tokens.json": FileRecord(
            352_064, "a2594fc1474e78973149cba8cd1f603ebed8c39c7decb470631f66e70ce58e97"
        ),
        "am.mvn": FileRecord(11_203, "29b3c740a2c0cfc6b308126d31d7f265fa2be74f3bb095cd2f143ea970896ae5"),
        "config.yaml": FileRecord(1_855, "f71e239ba36705564b5bf2d2ffd07eece07b8e3f2bbf6d2c99d8df856339ac19"),
        VOCABULARY_FILE: FileRecord(
            377_341, "aa87f86064c3730d799ddf7af3c04659151102cba548bce325cf06ba4da4e6a8"
        ),
    }
)

_PLACES: Final = (
    Hub("modelscope", "iic/SenseVoiceSmall-onnx", "4e95991ddb34c70e9b94f026d62ac82a9d941ae1"),
    # byte-identical mirrors
    Hub("hf", "DennisHuang648/SenseVoiceSmall-onnx", "0e0d0a81fe03a27c0d56329ff6fc2dcc3fe01f7e"),
    Hub("hf", "haixuantao/SenseVoiceSmall-onnx", "c4c8747214bed7ebbf2557e0412c19efa540023c"),
)


def pinned_place(hub: Hub) -> Hub | None:
    """The same repository at the revision that is pinned, if that or none is asked for."""
    for place in _PLACES:
        if (hub.kind, hub.repository) == (place.kind, place.repository):
            return place if hub.revision in {None, place.revision} else None
    return None


def is_published(model_sha256: str | None) -> bool:
    """Whether this is the digest of the published model_quant.onnx."""
    return model_sha256 == FILES[MODEL_FILE].sha256
