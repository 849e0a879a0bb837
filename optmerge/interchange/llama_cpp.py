"""Ask llama.cpp: what it makes of a GGUF file is the proof that the file is right.

It runs in a process of its own, so that its notes are not seen and that what it refuses, which may be by ending its
process, is only a refusal.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optmerge.errors import OptmergeError


def ask_llama_cpp(
    path: Path, texts: Sequence[str], prompts: Sequence[list[int]], new_tokens: int, threads: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Load a file in llama.cpp, let it cut texts into tokens, and let it answer prompts greedily.

    Args:
        path: The GGUF file.
        texts: What it is to cut.
        prompts: What it is to answer, as tokens.
        new_tokens: The most tokens of an answer.
        threads: How many it may use.

    Returns:
        The tokens of each text, and those of each answer.

    Raises:
        OptmergeError: If it cannot load or run it.
    """
    longest = max((len(prompt) for prompt in prompts), default=0) + new_tokens
    asked = {
        "path": str(path),
        "texts": list(texts),
        "prompts": list(prompts),
        "new_tokens": new_tokens,
        "threads": threads,
        "context": max(256, longest),
    }
    with tempfile.TemporaryDirectory(prefix="optmerge-") as folder:
        answers = Path(folder) / "answers.json"
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(answers)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0 or not answers.exists():
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            telling = [line for line in lines if " E " in line or "rror" in line] or lines or ["it said nothing"]
            raise OptmergeError(f"llama.cpp cannot run {path.name}: {telling[-1].strip()}")
        found = json.loads(answers.read_text(encoding="utf-8"))
    return found["tokens"], found["responses"]


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp's server, started within this process and on loopback, says."""
    import secrets

    import httpx2
    import xllamacpp

    key = secrets.token_hex(16)
    settings = xllamacpp.CommonParams()
    settings.model.path = asked["path"]
    settings.n_ctx = asked["context"]
    settings.cpuparams.n_threads = asked["threads"]
    settings.cpuparams_batch.n_threads = asked["threads"]
    # It keeps keys and values in 16 bits by default: here the file is looked at, and not that.
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    settings.warmup = False
    settings.api_keys = [key]
    server = xllamacpp.Server(settings)
    with httpx2.Client(
        base_url=server.listening_address, headers={"Authorization": f"Bearer {key}"}, timeout=None, trust_env=False
    ) as client:

        def post(where: str, **what: Any) -> Any:
            said = client.post(where, json=what)
            said.raise_for_status()
            return said.json()

        tokens = [
            post("/tokenize", content=text, add_special=True, parse_special=False)["tokens"] for text in asked["texts"]
        ]
        responses = [
            post(
                "/completion",
                prompt=prompt,
                n_predict=asked["new_tokens"],
                temperature=0,
                return_tokens=True,
                cache_prompt=False,
            )["tokens"]
            for prompt in asked["prompts"]
        ]
    return {"tokens": tokens, "responses": responses}


if __name__ == "__main__":
    import os

    said = _answer(json.load(sys.stdin))
    Path(sys.argv[1]).write_text(json.dumps(said), encoding="utf-8")
    os._exit(0)  # its threads need not be waited for
