"""Both dashboards as people see them, in a real browser."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end.serving import Dashboards, dashboards

from browser.conftest import Browser


def study(served: Dashboards) -> str:
    return served.address("watch the study")


def shows(*words: str) -> Callable[[Browser], bool]:
    return lambda browser: all(word in browser.text() for word in words)


def loaded_pictures(browser: Browser) -> list[str]:
    """The descriptions of the pictures that were not only named but drawn."""
    drawn = "return [...document.images].filter(i => i.complete && i.naturalWidth > 100).map(i => i.alt)"
    found: list[str] = browser.driver.execute_script(drawn)
    return found


def test_page_of_the_study_shows_history_and_files(served: Dashboards, browser: Browser) -> None:
    browser.open(study(served), shows("History", "Best Trial", "Study Artifacts", "progress.png"))
    assert browser.all(".js-plotly-plot .scatterlayer .trace")
    assert "acc_ja" in browser.text() and "Objective 0" not in browser.text()
    for name in ("parameters.png", "result.json", "recipe.yaml"):
        assert name in browser.text()
    browser.screenshot("study")
    browser.driver.execute_script("document.querySelector('img').scrollIntoView()")
    browser.screenshot("study-files")
    assert browser.errors() == []


def test_note_tells_what_is_searched_and_shows_the_pictures(served: Dashboards, browser: Browser) -> None:
    browser.open(served.address("its note"), lambda browser: len(loaded_pictures(browser)) > 4)
    told = browser.text()
    for words in ("Done: 6 of 6 trials", "What is searched", "source math_add", "evolved merge (trial", "95% interval"):
        assert words in told
    heads = [[cell.text for cell in table.find_elements("css selector", "th")] for table in browser.all("table")]
    assert heads[:2] == [["model", "score", "95% interval"], ["trial", "acc_ja"]]
    assert any("rial" in words and "acc_ja" in words for words in loaded_pictures(browser))
    order = [told.index(words) for words in ("Best in the search", "What is searched", "How to go on", "test.png")]
    assert order == sorted(order)
    browser.screenshot("note")
    browser.driver.set_window_size(1400, 3200)
    browser.screenshot("note-whole")
    assert browser.errors() == []


def test_finalist_has_recipe_and_a_table_of_problems_with_responses(
    served: Dashboards, browser: Browser, searched: Path
) -> None:
    browser.open(served.address("its note"), shows("Finalists, each with its recipe"))
    finalists = [link for link in browser.all("p a[href*='trials?numbers=']") if link.text.isdigit()]
    number = finalists[-1].text
    browser.open(finalists[-1].get_attribute("href"), shows("problems.csv", "recipe.yaml"))
    browser.screenshot("finalist")
    (button,) = browser.all("button[aria-label='show artifact table']")
    browser.driver.execute_script("arguments[0].click()", button)
    (kept,) = searched.glob(f"studies/demo-seed0/responses/*-{number}.jsonl")
    first = next(json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines() if line)
    browser.wait(shows("question", "response", first["id"], " ".join(first["response"]["text"].split())))
    browser.screenshot("finalist-problems")
    assert browser.errors() == []


def test_list_of_studies_leads_to_the_study(served: Dashboards, browser: Browser) -> None:
    browser.open(study(served).partition("/studies")[0], shows("demo-seed0"))
    browser.screenshot("studies")
    assert browser.errors() == []


def test_mlflow_shows_the_run_of_the_study(served: Dashboards, browser: Browser) -> None:
    browser.open(served.address("watch the runs"), shows("demo-seed0", "Searched are merges by", "sampler", "cmaes"))
    assert re.search(r"/#/experiments/\d+/runs/[0-9a-f]{32}$", served.address("watch the runs"))
    assert "python -m optmerge report study.name=demo-seed0" in browser.text()
    assert "Winner of study demo-seed0." in browser.text()
    browser.screenshot("mlflow-run")
    assert browser.errors() == []


def test_a_page_of_400_genes_is_there_in_seconds(
    new_browser: Callable[[], Browser], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """A quarter of the 1000 trials that benchmarks/dashboard.py measures."""
    sys.path.insert(0, str(pytestconfig.rootpath / "benchmarks"))
    from dashboard import fill

    fill(f"sqlite:///{tmp_path}/studies.db", genes=400, trials=250)
    with dashboards("study.name=large", f"study.folder={tmp_path}", cwd=tmp_path) as served:
        browser = new_browser()
        browser.open(study(served), lambda browser: browser.all(".js-plotly-plot .scatterlayer .trace"))
        sent = browser.driver.execute_script(
            "return performance.getEntriesByType('resource').filter(e => e.name.includes('/api/studies/'))"
            ".map(e => e.transferSize)"
        )
        assert sum(sent) < 5e6
        browser.screenshot("400-genes")
        browser.open(f"{study(served)}/note", shows("400: 200 of", "20 of them"))
        assert browser.errors() == []
