"""The page in a real browser: it draws, makes no requests, fits a phone, follows the theme, and prints."""

import pytest
from helpers.browser import Browser, find
from helpers.made_fit import CAPACITY, EXPONENT, FLOOR, UNDETERMINED, page_of, surfaces

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(find() is None, reason="needs chromium or google-chrome on the PATH"),
]

UNDRAWN = """[...document.querySelectorAll(".plot")]
    .filter((plot) => !plot.querySelector(".scatterlayer .trace path, .scatterlayer .trace .point")).length"""
PANELS = """JSON.parse(document.getElementById("data").textContent).charts
    .reduce((sum, chart) => sum + chart.options[0].panels.length, 0)"""
OUTSIDE = """[...document.querySelectorAll("main *")]
    .filter((e) => !e.closest(".scroll, pre, .plot") && e.getBoundingClientRect().right > innerWidth + 1)
    .map((e) => e.outerHTML.slice(0, 80))"""
FIRST_LINE = """getComputedStyle(document.querySelector("#figure-loss .trace path.js-line")).stroke"""
LAST_ENERGY = """document.querySelector("#figure-energy .plot").data[1].y.at(-1)"""
SHOWN_LINES = """document.querySelectorAll("#figure-loss .trace").length"""


@pytest.fixture(scope="module")
def page(sweep, tmp_path_factory):
    page = tmp_path_factory.mktemp("page") / "report.html"
    page.write_text(page_of(sweep, EXPONENT, UNDETERMINED, *surfaces(), FLOOR, CAPACITY))
    return page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def events(browser: Browser, *methods: str) -> list:
    return [event["params"] for event in browser.events if event.get("method") in methods]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_draws_fits_and_makes_no_requests(browser, page, tmp_path, width, dark):
    browser.open(page, width, dark)
    assert browser.evaluate("document.querySelectorAll('.plot').length") == browser.evaluate(PANELS) > 20
    assert browser.evaluate(UNDRAWN) == 0
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OUTSIDE) == []
    assert events(browser, "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []
    requests = [request["request"]["url"] for request in events(browser, "Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_colours_follow_the_theme(browser, page):
    browser.open(page, 1280)
    light = browser.evaluate(FIRST_LINE)
    browser.open(page, 1280, dark=True)
    assert browser.evaluate(FIRST_LINE) != light


def test_legend_hides_and_choice_changes(browser, page):
    browser.open(page, 1280)
    before = browser.evaluate(SHOWN_LINES)
    browser.evaluate("document.querySelector('#figure-loss .chart-legend button').click()")
    hidden = browser.evaluate(SHOWN_LINES)
    browser.evaluate("document.querySelector('#figure-loss .chart-legend button').click()")
    assert hidden == before - 4
    assert browser.evaluate(SHOWN_LINES) == before
    assert browser.evaluate(LAST_ENERGY) == pytest.approx(4.02)
    choose = "(() => { const s = document.querySelector('#figure-energy select'); s.value = '3';"
    browser.evaluate(choose + " s.dispatchEvent(new Event('change')); })()")
    assert browser.evaluate(LAST_ENERGY) == pytest.approx(5.0)
    assert browser.evaluate(UNDRAWN) == 0


def test_print_opens_details_and_fits_paper(browser, page, tmp_path):
    browser.open(page, 1280, dark=True)
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("document.querySelectorAll('details.basis:not([open])').length") == 0
    assert (
        browser.evaluate("Math.max(...[...document.querySelectorAll('.plot')].map((p) => p._fullLayout.width))") <= 675
    )
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate("document.querySelectorAll('details[open]').length") == 0
    browser.media("print", width=688)  # A4 within its margins
    ends = "[...document.querySelectorAll('table, pre')].map((e) => e.getBoundingClientRect().right)"
    assert browser.evaluate(f"Math.max(...{ends})") <= 689, "or the browser would shrink the whole page"
    browser.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
