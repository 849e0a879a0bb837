"""A browser without windows, and dashboards of a search for it to look at.

Screenshots are saved in the folder that OPTMERGE_SCREENSHOTS names, to be looked at.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import made_once
from end_to_end.serving import Dashboards, dashboards
from end_to_end.studies import run_process

_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1400",
]
_LONGEST = 60.0  # seconds for a page
# MLflow asks for a user that its server has only with logins.
_KNOWN_ERRORS = ["mlflow/users/current", "ResizeObserver loop"]  # both of MLflow's own page


@dataclass
class Browser:
    """A browser, and where its screenshots go."""

    driver: Any
    screenshots: Path

    def open(self, address: str, until: Callable[["Browser"], object]) -> None:
        """Open a page and wait until something is there."""
        self.driver.get(address)
        self.wait(until)

    def wait(self, until: Callable[["Browser"], object]) -> None:
        from selenium.common.exceptions import WebDriverException

        began = time.monotonic()
        while True:
            try:
                if until(self):
                    return
            except WebDriverException:  # the page is being built
                pass
            assert time.monotonic() - began < _LONGEST, f"the page shows only: {self.text()[:2000]}"
            time.sleep(0.2)

    def text(self) -> str:
        found: str = self.driver.execute_script("return document.body.innerText")
        return found

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def screenshot(self, name: str) -> None:
        time.sleep(1)  # what is drawn step by step is drawn
        self.driver.save_screenshot(str(self.screenshots / f"{name}.png"))

    def errors(self) -> list[str]:
        """What the page has complained of, but for what is known."""
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in said if not any(known in message for known in _KNOWN_ERRORS)]


@pytest.fixture(scope="session")
def new_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Browser]]:
    """Makes browsers that have nothing in their cache; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing: pip install 'optmerge[browser]'")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    screenshots = Path(os.environ.get("OPTMERGE_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    screenshots.mkdir(parents=True, exist_ok=True)
    running = []

    def start() -> Browser:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        running.append(webdriver.Chrome(options, webdriver.ChromeService(driver)))
        return Browser(running[-1], screenshots)

    yield start
    for one in running:
        one.quit()


@pytest.fixture
def browser(new_browser: Callable[[], Browser]) -> Browser:
    return new_browser()


@pytest.fixture(scope="session")
def searched(new_browser: object, zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that MLflow followed and that kept its responses."""

    def search(cwd: Path) -> None:
        cwd.mkdir()
        words = [f"models.folder={zoo}", "models.maker=null", "study.trials=6", "study.finalists=2"]
        done = run_process(*words, "study.baselines=false", "study.keep_responses=true", cwd=cwd)
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "searched", search)


@pytest.fixture(scope="session")
def served(searched: Path) -> Iterator[Dashboards]:
    with dashboards("study.name=demo-seed0", cwd=searched) as found:
        yield found
