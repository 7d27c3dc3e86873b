"""All benchmarks, one after the other: tables on stdout, figures and charts in a folder.

    python benchmarks/all.py [--to docs/performance] [--quick]

About an hour on a machine that does nothing else; `--quick` shows in a few minutes, with the small model,
that they run, and its figures say nothing. One that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
QUICK_LOAD: Final = ["--model", "nano", "--seconds", "6", "--capacity-seconds", "2"]
# program → what it is told to be quick; None: it is left out then
PROGRAMS: Final[dict[str, list[str] | None]] = {
    "engine.py": ["--rounds", "2"],
    "load.py": ["--model", "nano", "--rounds", "1", "--seconds", "4", "--lone", "3"],
    "decoding.py": ["--rounds", "10"],
    "memory.py": ["--model", "nano", "--workers", "1,2"],
    "growth.py": ["--model", "nano", "--requests", "500"],
    "cores.py": ["--model", "nano", "--rounds", "1", "--seconds", "1"],
    "swap.py": [*QUICK_LOAD, "--phase-seconds", "3", "--soak-seconds", "1"],
    "rollback.py": ["--model", "nano", "--rounds", "2", "--capacity-seconds", "2"],
    "waits.py": QUICK_LOAD,
    "crowd.py": [*QUICK_LOAD, "--phase-seconds", "3"],
    "job_load.py": [*QUICK_LOAD, "--phase-seconds", "2", "--job-minutes", "10"],
    "first_words.py": ["--minutes", "1", "--rounds", "2"],
    "vad.py": None,
}


def options_of(program: str) -> str:
    """What it says of its options."""
    done = subprocess.run(
        [sys.executable, FOLDER / program, "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Run them; 1 if one failed."""
    parser = argparse.ArgumentParser(description="All benchmarks, one after the other.")
    parser.add_argument(
        "--to", type=Path, default=FOLDER.parent / "var" / "benchmarks", help="folder (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="whether they run, not what they measure")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), help="some of them")
    options = parser.parse_args(arguments)
    options.to.mkdir(parents=True, exist_ok=True)
    failed = []
    for program in options.only:
        quick = PROGRAMS[program]
        if options.quick and quick is None:
            continue
        known = options_of(program)
        target = options.to / program
        command = [sys.executable, str(FOLDER / program), *(quick or [] if options.quick else [])]
        for option, suffix in (("--json", ".json"), ("--chart", ".png")):
            if option in known:
                command += [option, str(target.with_suffix(suffix))]
        print(f"\n== {program}\n", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(program)
    print(f"\nfailed: {', '.join(failed)}" if failed else f"\nfigures and charts: {options.to}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
