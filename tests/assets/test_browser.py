"""The road of a newcomer in a real browser: lineage, a run started by clicking, its progress, metadata, a red check.

Set ``UNIPHY_SCREENSHOTS`` to a folder to keep the pictures.
"""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is an extra (browser)")

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RUN_SECONDS = 900
ENDED = ("SUCCESS", "FAILURE", "CANCELED")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Chromium is not installed"),
]


@pytest.fixture
def page():
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.set_default_timeout(120_000)
        yield tab
        browser.close()


@pytest.fixture
def keep(tmp_path: Path, page):
    folder = Path(os.environ.get("UNIPHY_SCREENSHOTS", tmp_path / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)

    def screenshot(name: str) -> None:
        page.wait_for_timeout(2500)  # layout and icons settle
        page.screenshot(path=folder / f"{name}.png")

    return screenshot


def test_from_the_first_page_to_a_trained_method_and_a_red_check(start_server, page, keep, tmp_path) -> None:
    server = start_server(UNIPHY_EXPERIMENT="tiny", UNIPHY_ARTIFACTS=str(tmp_path / "artifacts"))
    foreign: list[str] = []
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((server.url, "data:", "blob:")) else foreign.append(request.url)
        ),
    )
    page.goto(f"{server.url}/asset-groups")
    for group in ("ingest", "embed", "align", "train", "evaluate"):
        playwright.expect(page.get_by_text(group, exact=True).first).to_be_visible(timeout=120_000)
    keep("first_page")
    see_a_wrong_name_refused(server, page, keep)
    materialize_everything(server, page, keep)
    look_at_the_trained_method(server, page, keep)
    see_a_check_turn_red(server, page, keep, tmp_path / "artifacts" / "tiny" / "lab_events.parquet")
    assert not foreign, "the page asked for something outside this machine"


def see_a_wrong_name_refused(server, page, keep) -> None:
    expect = playwright.expect
    page.goto(f"{server.url}/locations/uniphy-lab/jobs/everything/playground")
    editor = page.locator(".CodeMirror").first
    expect(editor).to_be_visible()
    page.wait_for_timeout(6000)  # the page fills in the defaults
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("resources:\n  project:\n    config:\n      experiment: dmeo\n")
    expect(page.get_by_text("not in enum type").first).to_be_visible()
    keep("validation_message")


def materialize_everything(server, page, keep) -> None:
    expect = playwright.expect
    page.goto(f"{server.url}/jobs")
    page.get_by_role("link", name="everything").first.click()
    page.get_by_role("button", name="Materialize all").click()
    run = server.wait_until(server.runs, "a run starts")[0]
    page.goto(f"{server.url}/runs/{run['runId']}")
    expect(page.get_by_text("STEP_SUCCESS").nth(2)).to_be_visible(timeout=240_000)
    keep("progress")
    server.wait_until(lambda: server.runs()[0]["status"] in ENDED, "the run ends", RUN_SECONDS)
    assert server.runs()[0]["status"] == "SUCCESS"


def look_at_the_trained_method(server, page, keep) -> None:
    expect = playwright.expect
    page.goto(f"{server.url}/assets/train_mt_pcs")
    expect(page.get_by_text("validation error of what is kept").first).to_be_visible()
    keep("metadata")
    page.get_by_text("[Show Markdown]").first.click()
    curve = page.locator("img[src^='data:image/svg+xml']").first
    expect(curve).to_be_visible()
    assert curve.evaluate("image => image.naturalWidth") > 100, "the loss curve is drawn"
    keep("loss_curve")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Plots").click()
    expect(page.locator("canvas").first).to_be_visible()
    keep("plots")
    page.goto(f"{server.url}/asset-groups")
    expect(page.get_by_text("evaluate", exact=True).first).to_be_visible()
    page.keyboard.press("Alt+e")  # expand all groups
    expect(page.get_by_text("train_mt_pcs", exact=True).first).to_be_visible()
    keep("lineage")


def see_a_check_turn_red(server, page, keep, events) -> None:
    expect = playwright.expect
    table = pd.read_parquet(events)
    pd.DataFrame(table.assign(value=table["value"] * 100)).to_parquet(events)
    page.goto(f"{server.url}/assets/lab_events?view=checks")
    page.get_by_role("button", name="Execute").first.click()
    server.wait_until(
        lambda: len(server.runs()) == 2 and server.runs()[0]["status"] in ENDED, "the check runs"
    )
    page.goto(f"{server.url}/assets/lab_events?view=checks")
    expect(page.get_by_text("Failed").first).to_be_visible()
    expect(page.get_by_text("implausible").first).to_be_visible()
    keep("failing_check")
