"""Run the recipe's steps in order: the whole of it (about three hours), or --smoke (a few minutes).

--smoke takes tiny counts and espeak-ng alone, to prove that the chain runs from texts to a model that
loads in ONNX Runtime. The model that it makes recognises nothing.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
MODEL: Final = "sensevoice-nano"
PREVIOUS: Final = "sensevoice-nano-prev"
KOKORO_SEEDS: Final = (1, 2, 3, 11, 12, 13, 14, 15)
ENGLISH_SEEDS: Final = (31, 32)
MORE_ESPEAK_SEEDS: Final = (21, 22, 23, 24)
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130


@dataclass(frozen=True)
class Step:
    """One command of the recipe."""

    name: str
    module: str
    """below recipes.nano"""
    arguments: str
    """without --root; split as a shell would"""
    may_crash: bool = False
    """espeak-ng now and then ends with a signal; what it wrote until then counts"""

    def command(self, root: Path) -> list[str]:
        """What to run, from the top of the repository."""
        command = [sys.executable, "-m", f"recipes.nano.{self.module}"]
        if self.module != "texts":
            command += ["--root", str(root)]
        return command + shlex.split(self.arguments)


def espeak(shard: str, seed: int, count: int, more: str = "") -> Step:
    """Synthesis of one shard with espeak-ng."""
    arguments = f"--shard {shard} --seed {seed} --count {count} {more}"
    return Step(f"speech {shard}", "synth_espeak", arguments, may_crash=True)


def speech() -> list[Step]:
    """All synthesis."""
    return [
        espeak("espeakA", 11, 25_000),
        espeak("espeakB", 12, 25_000),
        espeak("espeak13", 13, 8000),
        *(espeak(f"espeak{seed}", seed, 7000) for seed in MORE_ESPEAK_SEEDS),
        *(espeak(f"espeakEN{seed}", seed, 7000, "--languages en") for seed in ENGLISH_SEEDS),
        espeak("held_espeak", 501, 500, "--held-out"),
        espeak("seen_espeak", 502, 3000),
        Step("speech flite1", "synth_classic", "--engine flite --seed 1 --count 2200"),
        Step("speech festival1", "synth_classic", "--engine festival --seed 1 --count 1400"),
        Step("speech mei1", "synth_classic", "--engine mei --seed 1 --count 1600"),
        Step("speech held_flite501", "synth_classic", "--engine flite --seed 501 --count 100 --held-out"),
        *(
            Step(f"speech kokoro{seed}", "synth_kokoro", f"--seed {seed} --minutes 7")
            for seed in KOKORO_SEEDS
        ),
        Step("speech held_kokoro1", "synth_kokoro", "--seed 1 --minutes 2 --held-out"),
    ]


def features() -> list[Step]:
    """Non-speech, feature sets, test lists."""
    english = " ".join(f"espeakEN{seed}" for seed in ENGLISH_SEEDS)
    more = " ".join(f"espeak{seed}" for seed in MORE_ESPEAK_SEEDS)
    kokoro = " ".join(f"x3:kokoro{seed}" for seed in KOKORO_SEEDS)
    return [
        Step("noise", "make_noise", ""),
        Step("features trainE", "make_features", f"--set trainE espeakA espeakB {english} {more}"),
        Step("features trainE2", "make_features", "--set trainE2 espeak13"),
        Step("features trainO", "make_features", "--set trainO x2:flite1 x2:mei1 x2:festival1"),
        Step("features trainK", "make_features", f"--set trainK {kokoro}"),
        Step("sets", "make_sets", ""),
    ]


def training(bf16: bool) -> list[Step]:
    """Both stages."""
    precision = "--bf16" if bf16 else "--no-bf16"
    return [
        Step(
            "train 1",
            "train",
            "--run run1 --sets trainE trainE2 trainO --minutes 24 --processes 1 --threads 1 "
            f"--lr 1.4e-3 --warm 150 --frames 1000 --flat 300 --ramp 600 {precision}",
        ),
        Step(
            "train 2",
            "train",
            "--run run2 --sets trainE trainE2 trainO trainK --minutes 81 --processes 2 --threads 1 "
            "--lr 1.5e-3 --warm 40 --frames 1000 --flat 0 --ramp 0 --greatest-strength 0.8 "
            f"--init run1/last.pt {precision}",
        ),
        Step("pick", "pick_weights", "--run run2"),
    ]


def delivery(evaluation: str) -> list[Step]:
    """Model folders, figures, samples, card."""
    return [
        Step("export", "export", f"--run run2 --to {MODEL} run2/last.pt"),
        Step("export previous", "export", f"--run run2 --to {PREVIOUS} --mean-at 1860"),
        Step("evaluate", "evaluate", f"--model {MODEL} --to eval.json {evaluation}"),
        Step(
            "evaluate previous",
            "evaluate",
            f"--model {PREVIOUS} --to eval_prev.json --precision int8 {evaluation}",
        ),
        Step(
            "card",
            "make_card",
            f"--model {MODEL} --evaluation eval.json --previous-evaluation eval_prev.json --to MODEL_CARD.md",
        ),
    ]


def whole_recipe(bf16: bool, outside_clips: Path | None) -> list[Step]:
    """Everything, with the arguments that made sensevoice-nano."""
    outside = f"--outside-clips {shlex.quote(str(outside_clips.resolve()))}" if outside_clips else ""
    samples = Step("samples", "make_samples", f"--model {MODEL} --to samples --previous {PREVIOUS}")
    return [
        Step("texts", "texts", ""),
        Step("vocabulary", "make_vocabulary", ""),
        *speech(),
        *features(),
        *training(bf16),
        *delivery(outside),
        samples,
    ]


def smoke(bf16: bool) -> list[Step]:
    """The same chain with tiny counts: espeak-ng alone, a dozen steps of training."""
    common = (
        f"--sets trainE --minutes 5 --threads 1 --frames 300 --seed 1 {'--bf16' if bf16 else '--no-bf16'}"
    )
    return [
        Step("texts", "texts", "--examples 1 --draws 500"),
        Step("vocabulary", "make_vocabulary", ""),
        espeak("espeakA", 11, 120),
        espeak("held_espeak", 501, 40, "--held-out"),
        espeak("seen_espeak", 502, 60),
        Step("noise", "make_noise", "--scale 0.04"),
        Step("features trainE", "make_features", "--set trainE espeakA"),
        Step("sets", "make_sets", "--test-size 4 --dev-size 2"),
        Step("train 1", "train", f"--run run1 --max-steps 8 --lr 1.4e-3 --warm 4 {common}"),
        Step(
            "train 2",
            "train",
            "--run run2 --max-steps 4 --lr 1.5e-3 --warm 2 --flat 0 --ramp 0 --greatest-strength 0.8 "
            f"--processes 2 --init run1/last.pt {common}",
        ),
        Step("pick", "pick_weights", "--run run2 --threads 1"),
        *delivery("--limit 1 --threads 1"),
    ]


def run(step: Step, root: Path) -> bool:
    """Run a step; whether the next one may follow."""
    started = time.monotonic()
    print(f"== {step.name}", file=sys.stderr, flush=True)
    code = subprocess.run(step.command(root), cwd=REPOSITORY, check=False).returncode
    seconds = time.monotonic() - started
    if code < 0 and step.may_crash:
        print(f"== {step.name}: ended by signal {-code} after {seconds:.0f} s; going on with what it wrote")
        return True
    print(f"== {step.name}: {'done' if code == 0 else f'exit code {code}'} after {seconds:.1f} s")
    return code == 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--root", type=Path, required=True, metavar="DIR", help="the work folder (made if missing)")
    add("--smoke", action="store_true", help="tiny counts, espeak-ng alone")
    add("--list", action="store_true", help="print the commands and do nothing")
    add("--from", dest="first", metavar="STEP", help="begin at this step")
    add("--to", dest="last", metavar="STEP", help="end behind this step")
    add("--bf16", action="store_true", help="train in bfloat16: only where the CPU has avx512_bf16")
    add("--outside-clips", type=Path, metavar="DIR", help="LANGUAGE/*.wav and .txt, for the evaluation")
    args = parser.parse_args(argv)
    args.steps = smoke(args.bf16) if args.smoke else whole_recipe(args.bf16, args.outside_clips)
    names = [step.name for step in args.steps]
    for option, name in (("--from", args.first), ("--to", args.last)):
        if name is not None and name not in names:
            parser.error(f"{option} {name!r}: should be one of {', '.join(names)}")
    first = names.index(args.first) if args.first else 0
    last = names.index(args.last) if args.last else len(names) - 1
    args.steps = args.steps[first : last + 1]
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the steps until one fails."""
    args = parse(argv)
    root = args.root.resolve()
    for step in args.steps:
        if args.list:
            print(f"{step.name:20} {shlex.join(step.command(root)[1:])}")
        elif not run(step, root):
            again = f"python -m recipes.nano.run --root {shlex.quote(str(root))}"
            print(f"The step {step.name!r} failed; nothing behind it ran.", file=sys.stderr)
            print(
                f"To go on from it: {again}{' --smoke' if args.smoke else ''} --from {step.name!r}",
                file=sys.stderr,
            )
            return EXIT_FAILED
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
