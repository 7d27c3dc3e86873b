"""Write MODEL_CARD.md from the template, with tables of the evaluation and the facts of card_facts.json."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from recipes.nano import workfolder
from recipes.nano.grammar import LANGUAGES
from recipes.nano.shards import SAMPLE_RATE, read_lines
from recipes.nano.workfolder import WorkFolder

HERE: Final = Path(__file__).parent
WORD_RATE_LANGUAGES: Final = ("_en_", "_ko_")
"""The others are written without blanks: no word error rate."""

TEST_HEADER: Final = (
    "| test | n | CER withitn fp32 | CER withitn int8 | CER woitn fp32 | CER woitn int8 | WER woitn int8 "
    "| sentence exact withitn / woitn int8 | language id (auto) int8 | event Speech int8 |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)
CLIP_HEADER: Final = (
    "| clip | reference | int8, language=auto, withitn | int8, language=auto, woitn | CER (auto, woitn) "
    "| int8, language given, withitn | CER |\n|---|---|---|---|---|---|---|\n"
)
EVENT_HEADER: Final = (
    "| clips (unseen seeds) | n | right event | `<\\|nospeech\\|>` | empty text | events given |\n"
    "|---|---|---|---|---|---|\n"
)


def row(*cells: object) -> str:
    """A table's row."""
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def training_table(folder: WorkFolder) -> str:
    """Utterances by engine and language, and hours by engine."""
    utterances: Counter[tuple[str, str]] = Counter()
    samples: Counter[str] = Counter()
    for shard in folder.training_shards():
        for utterance in read_lines(folder.data, shard):
            engine = utterance["voice"].split(":")[0]
            utterances[engine, utterance["lang"]] += 1
            samples[engine] += utterance["n"]
    table = row("engine", *LANGUAGES, "hours") + "|---|" + "---|" * 6 + "\n"
    for engine in sorted(samples):
        counts = [utterances.get((engine, language), "-") for language in LANGUAGES]
        table += row(engine, *counts, f"{samples[engine] / SAMPLE_RATE / 3600:.2f}")
    totals = [
        sum(count for (_, spoken), count in utterances.items() if spoken == language)
        for language in LANGUAGES
    ]
    return table + row("all", *totals, f"{samples.total() / SAMPLE_RATE / 3600:.2f}")


def test_table(fp32: dict[str, Any] | None, int8: dict[str, Any]) -> str:
    """The tests b_ and c_."""
    table = TEST_HEADER
    for name in sorted(int8):
        if not name.startswith(("b_", "c_")):
            continue
        figures = int8[name]
        full = (fp32 or {}).get(name)
        word_rate = any(language in name for language in WORD_RATE_LANGUAGES)
        table += row(
            name,
            figures["n"],
            f"{full['cer_withitn']:.1f}" if full else "not run",
            f"**{figures['cer_withitn']:.1f}**",
            f"{full['cer_woitn']:.1f}" if full else "not run",
            f"**{figures['cer_woitn']:.1f}**",
            f"{figures['wer_woitn']:.1f}" if word_rate else "-",
            f"{figures['exact_withitn']:.0f} % / {figures['exact_woitn']:.0f} %",
            f"{figures['lid_auto']:.0f} %",
            f"{figures['event_speech']:.0f} %",
        )
    return table


def clip_table(int8: dict[str, Any]) -> str:
    """The clips that nobody here made."""
    table = CLIP_HEADER
    for name, clip in int8["a_pytest_audioeval"].items():
        foreign = " (out of domain)" if "pangram" in name or "fox" in name else ""
        table += row(
            name + foreign,
            clip["ref"],
            f"`{clip['tags'][0]}` {clip['withitn']}",
            clip["woitn"],
            f"{clip['cer_auto_woitn']:.0f}",
            clip["withitn_lang_given"],
            f"{clip['cer_lang_withitn']:.0f}",
        )
    return table


def event_table(int8: dict[str, Any]) -> str:
    """Clips without speech, and speech under music."""
    table = EVENT_HEADER
    for name, figures in int8["events"].items():
        if "nospeech" in figures:
            right = "-" if name == "babble" else figures["event_ok"]
            given = ", ".join(f"{event} {count}" for event, count in figures["got"].items())
            table += row(name, figures["n"], right, figures["nospeech"], figures["empty_text"], given)
        else:
            cer = f"CER withitn {figures['cer_withitn']:.1f}"
            table += row(name, figures["n"], f"{figures['event_bgm']} (BGM)", "-", "-", cer)
    return table


def file_sizes(model: Path) -> tuple[str, str]:
    """A row a file, and the megabytes of what ships (all but model.onnx)."""
    sizes = {path.name: path.stat().st_size for path in sorted(model.iterdir())}
    shipped = sum(size for name, size in sizes.items() if name != "model.onnx")
    return "".join(row(*item) for item in sizes.items()).rstrip("\n"), f"{shipped / 1e6:.2f}"


def fill(template: str, values: dict[str, str]) -> str:
    """Put the values into {{NAME}}s.

    Raises:
        ValueError: the template asks for something that is not there.
    """
    for name, value in values.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    if "{{" in template:
        missing = template.split("{{", 1)[1].split("}}", 1)[0]
        raise ValueError(f"card_template.md asks for {{{{{missing}}}}}, which no table and no fact gives")
    return template


def main(argv: list[str] | None = None) -> int:
    """Write the card."""
    parser = workfolder.parser(__doc__)
    add = parser.add_argument
    add(
        "--model", type=Path, required=True, metavar="DIR", help="whose sizes are told; below the work folder"
    )
    add("--evaluation", type=Path, required=True, metavar="JSON", help="below the work folder")
    add("--previous-evaluation", type=Path, required=True, metavar="JSON", help="of the version before")
    add("--facts", type=Path, default=HERE / "card_facts.json", metavar="JSON", help="prose about this run")
    add("--to", type=Path, required=True, metavar="MD", help="below the work folder")
    args = parser.parse_args(argv)
    root = args.root.root
    now = json.loads((root / args.evaluation).read_text(encoding="utf-8"))
    before = json.loads((root / args.previous_evaluation).read_text(encoding="utf-8"))
    sizes, shipped = file_sizes(root / args.model)
    values = {
        "TAB": training_table(args.root),
        "BIG": test_table(now.get("fp32"), now["int8"]),
        "AUD": clip_table(now["int8"]),
        "EVS": event_table(now["int8"]),
        "PBIG": test_table(before.get("fp32"), before["int8"]),
        "PAUD": clip_table(before["int8"]),
        "PEVS": event_table(before["int8"]),
        "SIZES": sizes,
        "TOTAL": shipped,
        **json.loads(args.facts.read_text(encoding="utf-8")),
    }
    card = fill((HERE / "card_template.md").read_text(encoding="utf-8"), values)
    (root / args.to).write_text(card, encoding="utf-8")
    print(f"{root / args.to}: {len(card)} characters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
