"""Learn the vocabulary: SenseVoice's special tokens, every character of the domain, and BPE merges.

The merges are learnt on English and Korean; the other three languages are spelt character by character.
"""

# ruff: noqa: SIM905 (long lists of words read best as one string)
from __future__ import annotations

import json
import sys
from random import Random
from typing import Final

from recipes.nano import workfolder
from recipes.nano.grammar import LANGUAGES, generate
from recipes.nano.workfolder import WorkFolder

SPECIAL_TOKENS: Final = tuple(
    f"<|{name}|>"
    for name in (
        "zh en yue ja ko nospeech HAPPY SAD ANGRY NEUTRAL FEARFUL DISGUSTED SURPRISED EMO_UNKNOWN Speech BGM "
        "Applause Laughter Cry Sneeze Breath Cough Event_UNK withitn woitn"
    ).split()
)
CONTROL_PIECES: Final = 3
"""<unk> (0, CTC's blank), <s> and </s>."""


def draw_texts(sentences: int, rng: Random) -> tuple[list[str], set[str]]:
    """The lines to learn merges from, and all characters of the domain but the blank."""
    lines: list[str] = []
    characters: set[str] = set()
    for language in LANGUAGES:
        for number in range(sentences):
            sentence = generate(language, rng)
            characters |= set(sentence.woitn + sentence.withitn)
            # a quarter of the Korean: its characters must not crowd out the merges of English
            if language == "en" or (language == "ko" and number % 4 == 0):
                lines += [sentence.woitn, sentence.withitn]
    characters.discard(" ")
    return lines, characters


def learn(folder: WorkFolder, sentences: int, merges: int) -> int:
    """Write the SentencePiece model and the token list; returns the number of pieces."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    lines, characters = draw_texts(sentences, Random(3))
    folder.vocabulary.mkdir(parents=True, exist_ok=True)
    corpus = folder.data / "spm.txt"
    corpus.write_text("\n".join(lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder.sentencepiece_model.with_suffix("")),
        vocab_size=CONTROL_PIECES + len(SPECIAL_TOKENS) + len(characters) + 1 + merges,
        model_type="bpe",
        character_coverage=1.0,
        required_chars="".join(sorted(characters)),
        user_defined_symbols=list(SPECIAL_TOKENS),
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        split_digits=True,
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        num_threads=2,
        max_sentencepiece_length=10,
        minloglevel=1,
    )
    # leave the work folder's path out of the file
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(folder.sentencepiece_model.read_bytes())
    del model.trainer_spec.input[:]
    model.trainer_spec.ClearField("model_prefix")
    folder.sentencepiece_model.write_bytes(model.SerializeToString())
    processor = sentencepiece.SentencePieceProcessor(str(folder.sentencepiece_model))
    pieces = [processor.id_to_piece(number) for number in range(processor.get_piece_size())]
    folder.tokens.write_text(json.dumps(pieces, ensure_ascii=False), encoding="utf-8")
    return len(pieces)


def check_round_trip(folder: WorkFolder, sentences: int = 200) -> list[str]:
    """Sentences that do not come back from their pieces as they were; should be none."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(str(folder.sentencepiece_model))
    rng = Random(4)
    lost = []
    for language in LANGUAGES:
        for _ in range(sentences):
            text = f"<|{language}|><|EMO_UNKNOWN|><|Speech|><|withitn|>{generate(language, rng).withitn}"
            pieces = processor.encode(text)
            if processor.decode(pieces) != text or processor.unk_id() in pieces:
                lost.append(text)
    return lost


def main(argv: list[str] | None = None) -> int:
    """Learn and check; 1 if a sentence of the domain cannot be written in the vocabulary."""
    parser = workfolder.parser(__doc__)
    parser.add_argument(
        "--sentences", type=int, default=40_000, help="drawn for every language (default 40000)"
    )
    parser.add_argument(
        "--merges", type=int, default=330, help="pieces of more than a character (default 330)"
    )
    args = parser.parse_args(argv)
    pieces = learn(args.root, args.sentences, args.merges)
    lost = check_round_trip(args.root)
    print(f"{pieces} pieces in {args.root.sentencepiece_model}")
    for text in lost:
        print(f"does not survive the vocabulary: {text}", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
