"""The command that prints what a shell needs to complete our words; made from the parser."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Final

from asrsvc.release.cli.command import Command, Context
from asrsvc.release.store import Store

SHELLS: Final = ("bash", "zsh")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""in which no shell finds anything to do; a version that was put there by hand may be called otherwise"""

_BASH: Final = """\
# bash: eval "$({program} completion bash)", or as a file in /etc/bash_completion.d
_asrsvc_swap_model() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
        case $current in
            -*) ;;
            *)  case ${{COMP_WORDS[1]}} in
                    {versioned}) words=$("${{COMP_WORDS[0]}}" completion versions 2>/dev/null) ;;
                esac ;;
        esac
    fi
    COMPREPLY=()
    # not compgen -W: it expands what the words hold, and so runs what the name of a folder says
    while IFS= read -r word; do
        case $word in "$current"*) [ -z "$word" ] || COMPREPLY+=("$word") ;; esac
    done < <(printf '%s\\n' "$words" | tr ' ' '\\n')
}}
complete -o default -F _asrsvc_swap_model {names}
"""

_ZSH: Final = """\
#compdef {names}
# zsh: eval "$({program} completion zsh)", or as a file _asrsvc_swap_model in a folder of $fpath
_asrsvc_swap_model() {{
    local -a commands options
    if (( CURRENT == 2 )); then
        commands=(
{described}
        )
        _describe command commands
        return
    fi
    case $words[2] in
{cases}
    esac
    if [[ $words[CURRENT] == -* ]]; then
        compadd -- $options
        return
    fi
    case $words[2] in
        {versioned}) compadd -- ${{(f)"$($words[1] completion versions 2>/dev/null)"}} ;;
        *) _files ;;
    esac
}}
compdef _asrsvc_swap_model {names}
"""


def completion(context: Context, options: argparse.Namespace) -> None:
    """Print a shell's completion, or the versions that it offers."""
    if options.shell == "versions":
        known = Store(context.store(lock_timeout=0).root).versions()
        ids = [version.id for version in known if _WORD.fullmatch(version.id)]
        context.result("\n".join(ids), {"versions": ids})
        return
    text = script(options.shell, context.program, options.parsers)
    context.result(text.rstrip("\n"), {"completion": text})


def touches_folders(options: argparse.Namespace) -> bool:
    """Whether a command looks at store or service: all do, but for what a shell's start-up file calls."""
    return options.command != "completion" or options.shell not in SHELLS


def script(shell: str, program: str, parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """The completion for a shell.

    Args:
        shell: one of `SHELLS`.
        program: how the tool is called.
        parsers: of the commands, by name.
    """
    options = {name: _options(parser) for name, parser in parsers.items()}
    versioned = [name for name, parser in parsers.items() if _takes_version(parser)]
    found = {
        "program": program,
        "commands": " ".join(parsers),
        "names": "swap-model asrsvc-swap-model",
        "versioned": "|".join(versioned),
    }
    if shell == "bash":
        cases = [f'            {name}) words="{" ".join(words)}" ;;' for name, words in options.items()]
        return _BASH.format(cases="\n".join(cases), **found)
    cases = [f"        {name}) options=({' '.join(words)}) ;;" for name, words in options.items()]
    described = [f"            '{name}:{_quoted(parser)}'" for name, parser in parsers.items()]
    return _ZSH.format(cases="\n".join(cases), described="\n".join(described), **found)


def _options(parser: argparse.ArgumentParser) -> list[str]:
    words = [word for action in parser._actions for word in action.option_strings if word.startswith("--")]
    for action in parser._actions:
        if not action.option_strings and action.choices is not None:
            words += [str(choice) for choice in action.choices]
    return words


def _takes_version(parser: argparse.ArgumentParser) -> bool:
    return any(action.metavar == "VERSION" for action in parser._actions)


def _quoted(parser: argparse.ArgumentParser) -> str:
    return (parser.description or "").replace("'", "’").replace(":", "\\:")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", choices=(*SHELLS, "versions"), help="for which shell; versions: the ids that it offers"
    )


COMMANDS: Final = (
    Command("completion", "print what a shell needs to complete commands", completion, None, _arguments),
)
