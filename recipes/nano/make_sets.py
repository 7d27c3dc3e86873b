"""Choose the test lists and, apart from them, the small development sets that training may watch.

Tests named c_ are sentences that no training shard holds, in voices of training; tests named b_ are
voices kept out of training.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from recipes.nano import workfolder
from recipes.nano.features import FeatureSetWriter, log_mel
from recipes.nano.shards import Shard, TestUtterance, Utterance, read_lines

SEEN_VOICES: Final = "seen_espeak"
HELD_OUT_VOICES: Final = {
    "held_espeak": "b_{}_espeak_heldout_variants",
    "held_flite501": "b_{}_flite_rms",
    "held_kokoro1": "b_{}_kokoro_tebukuro",
}
"""Shard -> name of its tests."""


def sentence_key(utterance: Utterance) -> str:
    """Equal for equal sentences."""
    return utterance["lang"] + utterance["withitn"]


def distinct_by_language(
    folder: Path, shard: str, wanted: Callable[[Utterance], bool] = lambda _: True
) -> dict[str, list[TestUtterance]]:
    """The first utterance of every sentence, by language."""
    seen: set[str] = set()
    result: dict[str, list[TestUtterance]] = {}
    for utterance in Shard(folder, shard).utterances:
        key = sentence_key(utterance)
        if wanted(utterance) and key not in seen:
            seen.add(key)
            result.setdefault(utterance["lang"], []).append({**utterance, "shard": shard})
    return result


def choose(
    folder: Path, trained: set[str], test_size: int, dev_size: int
) -> tuple[dict[str, list[TestUtterance]], dict[str, list[TestUtterance]]]:
    """Tests and development sets, by name.

    Args:
        folder: of the shards.
        trained: keys of all sentences of training.
        test_size: utterances of a test; the neural voice may have fewer.
        dev_size: utterances of a language and voice in a development set.
    """
    tests: dict[str, list[TestUtterance]] = {}
    dev: dict[str, list[TestUtterance]] = {"dev_seen": [], "dev_held": []}
    unseen = distinct_by_language(folder, SEEN_VOICES, lambda item: sentence_key(item) not in trained)
    for language, utterances in unseen.items():
        tests[f"c_{language}_unseen_sentences"] = utterances[:test_size]
        dev["dev_seen"] += utterances[test_size : test_size + dev_size]
    for shard, name in HELD_OUT_VOICES.items():
        if not (folder / f"{shard}.jsonl").exists():
            continue
        for language, utterances in distinct_by_language(folder, shard).items():
            neural = "kokoro" in shard
            # a shard too small for both is all test; of the neural voice there is nothing to spare
            enough = not neural and len(utterances) > test_size * 5 // 4
            count = test_size if enough or neural else len(utterances)
            tests[name.format(language)] = utterances[:count]
            if enough:
                dev["dev_held"] += utterances[count : count + dev_size]
    return tests, dev


def write_dev_set(folder: Path, name: str, utterances: list[TestUtterance]) -> None:
    """Features of a development set, not augmented."""
    shards: dict[str, Shard] = {}
    with FeatureSetWriter(folder, name) as writer:
        for utterance in utterances:
            shard_name = utterance["shard"]
            if shard_name not in shards:
                shards[shard_name] = Shard(folder, shard_name)
            writer.add(log_mel(shards[shard_name].waveform(utterance)), dict(utterance))


def main(argv: list[str] | None = None) -> int:
    """Write tests.json and the feature sets dev_seen and dev_held."""
    parser = workfolder.parser(__doc__)
    parser.add_argument("--test-size", type=int, default=60, help="utterances a test (default 60)")
    parser.add_argument("--dev-size", type=int, default=40, help="utterances a language (default 40)")
    args = parser.parse_args(argv)
    folder = args.root.data
    trained = {
        sentence_key(utterance)
        for name in args.root.training_shards()
        for utterance in read_lines(folder, name)
    }
    print(f"{len(trained)} distinct sentences in training: {' '.join(args.root.training_shards())}")
    tests, dev = choose(folder, trained, args.test_size, args.dev_size)
    for name, utterances in tests.items():
        unseen = sum(sentence_key(utterance) not in trained for utterance in utterances)
        print(f"{name}: {len(utterances)} utterances, {unseen} of sentences not in training")
    args.root.tests.write_text(json.dumps(tests, ensure_ascii=False), encoding="utf-8")
    for name, utterances in dev.items():
        write_dev_set(folder, name, utterances)
        print(f"{name}: {len(utterances)} utterances")
    return 0


if __name__ == "__main__":
    sys.exit(main())
