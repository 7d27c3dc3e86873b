"""Transcribe as an application does that uses LiteLLM: python transcribe.py <request.json

The request, on stdin: api_base, and calls, each with its file and the arguments of litellm.transcription.
On stdout: for each call what it returns, or its error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import litellm
import openai


def answer(api_base: str, file: str, arguments: dict[str, Any]) -> dict[str, Any]:
    with Path(file).open("rb") as sound:
        try:
            said = litellm.transcription(
                file=sound, api_base=api_base, api_key="none", max_retries=0, timeout=300, **arguments
            )
        except openai.APIStatusError as error:
            return {"error": str(error), "status": error.status_code}
    return said.model_dump() if hasattr(said, "model_dump") else {"text": said}


def main() -> None:
    request = json.load(sys.stdin)
    calls = request["calls"]
    answers = [answer(request["api_base"], call["file"], call["arguments"]) for call in calls]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
