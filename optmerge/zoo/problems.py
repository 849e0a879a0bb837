"""The zoo's problem sets, written as files."""

import json
import random
from pathlib import Path

from optmerge.zoo.lessons import draw_story
from optmerge.zoo.plan import TrainingPlan


def write_problems(folder: Path, plan: TrainingPlan, seed: int) -> None:
    """Write `search.jsonl`, `validation.jsonl` and `test.jsonl`.

    No question is in two of them, nor twice in one. The sums behind the questions recur, as there are only 198.

    Args:
        folder: Where to, made if it is missing.
        plan: How many of each.
        seed: Of the choice.
    """
    generator = random.Random(f"{seed}/problems")
    sizes = {"search": plan.search_problems, "validation": plan.validation_problems, "test": plan.test_problems}
    seen: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in sizes.items():
        lines: list[str] = []
        while len(lines) < size:
            story = draw_story(generator)
            question = story.question("ja")
            if question not in seen:
                seen.add(question)
                lines.append(json.dumps({"question": question, "answer": str(story.answer)}, ensure_ascii=False))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
