"""Candidates that exhaust memory, whose logits are no numbers, or that say nothing sensible: none stops a study."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from end_to_end.conftest import assert_one_message
from end_to_end.studies import run_process, trials
from optmerge.__main__ import run
from optmerge.engines import transformers
from optmerge.engines.transformers import TransformersEngine


def test_a_candidate_that_exhausts_memory_fails_and_the_study_goes_on(
    here: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load, mount = transformers._load_model, TransformersEngine.mount
    merges: list[Any] = []
    batches: list[list[int]] = [[]]

    def allocate(module: object, arguments: tuple[()], given: dict[str, Any]) -> None:
        batches[-1].append(len(given["input_ids"]))
        if len(merges) == 2:
            torch.empty(2**60)  # more than any machine has: PyTorch's own error

    def load_hungry(*given: Any) -> Any:
        model = load(*given)
        model.register_forward_pre_hook(allocate, with_kwargs=True)
        return model

    def count(engine: TransformersEngine, candidate: Any) -> None:
        merges.append(candidate)
        batches.append([])
        mount(engine, candidate)

    monkeypatch.setattr(transformers, "_load_model", load_hungry)
    monkeypatch.setattr(TransformersEngine, "mount", count)
    assert run([*small, "study.trials=3", "pruner=none"]) == 0, capsys.readouterr().err
    found = trials(here)
    assert sorted(trial.state.name for trial in found) == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    (failed,) = (trial for trial in found if trial.state.name == "FAIL")
    assert failed.user_attrs["error"] == "memory runs out on a single request (engine.device=cpu)"
    assert batches[2][0] > 1 and batches[2][-1] == 1, "its batches were halved first"
    assert batches[3][0] == batches[1][0], "the next candidate's are as large as before"
    assert "1 failed" in capsys.readouterr().out


def test_first_candidates_that_all_fail_alike_stop_the_study_with_the_reason(here: Path, small: list[str]) -> None:
    huge = ["method.parameters.weight.low=1e20", "method.parameters.weight.high=2e20"]
    done = run_process(*small, *huge, "study.trials=6", cwd=here)
    assert done.returncode == 1
    assert_one_message(done.stderr)
    reason = "the merged model's logits are not numbers (NaN)"
    assert done.stderr == f"optmerge: 3 trials in a row failed alike: {reason}\n"
    assert "Traceback" not in done.stdout
    found = trials(here)
    assert [(trial.state.name, trial.user_attrs["error"]) for trial in found] == [("FAIL", reason)] * 3


BEYOND = 3  # tokens more than the tokenizer's: vocabularies are padded


@pytest.mark.parametrize(
    ("token", "stop_loops", "expected"),
    [
        ("beyond", "false", ("", "length", 40)),
        ("beyond", "true", ("", "loop", 32)),
        ("1", "false", ("1" * 40, "length", 40)),
        ("1", "true", ("1" * 32, "loop", 32)),
    ],
)
def test_responses_that_loop_or_say_nothing_score_what_they_say(
    zoo: Path, here: Path, token: str, stop_loops: str, expected: tuple[str, str, int]
) -> None:
    """A model that says one token, whatever was said: of the vocabulary, or one that the tokenizer does not know."""
    tokenizer: Any = AutoTokenizer.from_pretrained(zoo / "base")
    number = tokenizer.get_vocab().get(token, len(tokenizer) + BEYOND - 1)
    config = GPT2Config(
        vocab_size=len(tokenizer) + BEYOND,
        n_embd=8,
        n_layer=1,
        n_head=1,
        n_positions=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model: Any = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.transformer.wte.weight[number] = 1.0
    model.save_pretrained("stuck")
    tokenizer.save_pretrained("stuck")
    settings = [f"task.test.path={zoo / 'problems' / 'test.jsonl'}", "task.max_new_tokens=40"]
    assert run(["evaluate", "stuck", "task=gsm8k", *settings, f"task.stop_loops={stop_loops}", "json=found.json"]) == 0
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert {(one["response"], one["finish"], one["tokens"]) for one in found["problems"]} == {expected}
    assert found["scores"]["acc"]["score"] == 0
