"""The page in a real browser: nothing is requested, nothing is logged, nothing hostile runs, and all of it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from expunge import comparison, runfolder
from expunge.report import page
from tests.report import synthetic
from tests.report.synthetic import attacked, judged
from tests.report.test_page import evil_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
Open = Callable[..., "Page"]


@pytest.fixture
def show(chromium: Browser) -> Iterator[Open]:
    """Opens a file; at the end there must have been no console line, no error, no dialog, and one request: the file."""
    seen: list[str] = []
    pages: list[Page] = []

    def open_page(file: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> Page:
        tab = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        pages.append(tab)
        tab.on("console", lambda message: seen.append(f"console {message.type}: {message.text}"))
        tab.on("pageerror", lambda error: seen.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on("request", lambda request: None if request.url == file.as_uri() else seen.append(request.url[:200]))
        tab.goto(file.as_uri())
        tab.wait_for_selector("html[data-ready=yes]", state="attached")
        return tab

    yield open_page
    for tab in pages:
        tab.close()
    assert seen == []


@pytest.fixture(scope="module")
def report(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page.render([demo], tmp_path_factory.mktemp("browser") / "report.html")


def tokens(tab: Page, row: int, expression: str) -> list[Any]:
    """What a JavaScript expression of the token `t` is for each token of a row."""
    script = f"r => [...document.querySelectorAll('.sentence')[r].querySelectorAll('.tok')].map(t => {expression})"
    found: list[Any] = tab.evaluate(script, row)
    return found


def heat(tab: Page, row: int) -> list[float]:
    """How strongly each token of a row is shaded, in percent."""
    return tokens(tab, row, "parseFloat(t.style.getPropertyValue('--heat'))")


def test_it_loads_and_draws(report: Path, show: Open) -> None:
    tab = show(report)
    assert tab.title().startswith("graddiff, wga and etw")
    assert tab.locator(".card").count() == 5
    assert tab.locator(".chart svg path.line").count() == (8 + 2) * 3, "eight quantities of the log, two of the weights"
    assert tab.locator(".sentence").count() == 3
    box = tab.locator(".chart svg path.line").first.bounding_box()
    assert box is not None
    assert box["width"] > 100
    assert tab.locator("#tokenview .tok.gs").first.is_visible()


def test_the_style_is_not_blocked(report: Path, show: Open) -> None:
    tab = show(report)
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(250, 249, 246)"
    shaded = tokens(tab, 2, "getComputedStyle(t).backgroundColor")
    assert len(set(shaded)) > 5


def test_the_slider_moves_through_the_epochs(report: Path, show: Open) -> None:
    tab = show(report)
    assert tab.locator("#epochvalue").inner_text() == "0 (before)"
    tab.get_by_text("Probability", exact=True).click()
    before = heat(tab, 2)
    slider = tab.locator("#epoch")
    slider.focus()
    tab.keyboard.press("End")
    assert tab.locator("#epochvalue").inner_text() == "8"
    after = heat(tab, 2)
    gold = tokens(tab, 2, "t.classList.contains('g')")
    fallen = [b - a for b, a, g in zip(before, after, gold, strict=True) if g]
    assert min(fallen) > 50, "the probability of the gold tokens fell by more than half"
    assert "→" in tab.locator(".stats").nth(2).inner_text()
    slider.fill("3")
    assert tab.locator("#epochvalue").inner_text() == "3"


def test_play_runs_to_the_end_and_stops(report: Path, show: Open) -> None:
    tab = show(report)
    tab.locator("#epoch").fill("6")
    tab.locator("#play").click()
    assert tab.locator("#play").get_attribute("aria-label") == "Pause"
    tab.get_by_role("button", name="Play through the epochs").wait_for()
    assert tab.locator("#epochvalue").inner_text() == "8"


def test_pointing_and_walking_read_a_tokens_numbers(report: Path, show: Open) -> None:
    tab = show(report)
    tab.locator(".sentence").nth(1).locator(".tok").nth(2).hover()
    inspector = tab.locator("#inspector")
    assert "number 3 of" in inspector.inner_text()
    for name in ("target", "oracle", "graddiff", "wga", "etw"):
        assert name in inspector.inner_text()
    tab.locator(".sentence").nth(0).focus()
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    assert "number 2 of" in inspector.inner_text()
    assert tab.locator(".sentence").nth(0).get_attribute("aria-activedescendant") == "t0-1"
    assert "probability" in (tab.locator("#t0-1").get_attribute("aria-label") or "")
    tab.keyboard.press("End")
    assert "end of the answer" in inspector.inner_text()


def test_records_change_by_list_and_by_button(report: Path, show: Open) -> None:
    tab = show(report)
    tab.locator("#record").select_option("0")
    assert tab.locator("#prompt").inner_text() == "Where was Ilse Varnholt born?"
    tab.locator("#next").click()
    assert tab.locator("#prompt").inner_text() == "What did Ilse Varnholt's father do?"
    tab.locator("#previous").click()
    tab.locator("#previous").click()
    assert tab.locator("#record").input_value() == "39"


def test_charts_read_out_values(report: Path, show: Open) -> None:
    tab = show(report)
    chart = tab.locator(".chart").first
    chart.scroll_into_view_if_needed()
    chart.locator(".plotarea").focus()
    assert "epoch 8" in chart.locator(".readout").inner_text()
    tab.keyboard.press("Home")
    assert "epoch 0.05" in chart.locator(".readout").inner_text()
    assert "etw" in chart.locator(".readout").inner_text()
    chart.locator("svg").hover(position={"x": 150, "y": 60})
    assert chart.locator(".rule").evaluate("r => getComputedStyle(r).visibility") == "visible"


def test_answers_are_filtered_and_unfolded(report: Path, show: Open) -> None:
    tab = show(report)
    forget = tab.locator(".questions").first
    assert forget.locator(".question:visible").count() == 4
    tab.get_by_role("button", name="Show 36 more").click()
    assert forget.locator(".question:visible").count() == 40
    tab.locator("#find").fill("Okrent's father")
    assert forget.locator(".question:visible").count() == 1
    tab.locator("#find").fill("")
    assert forget.locator(".question:visible").count() == 40


def test_a_recipe_can_be_copied(report: Path, show: Open) -> None:
    tab = show(report)
    tab.get_by_role("button", name="Copy").first.click()
    tab.get_by_role("button", name="Copied").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_it_fits_every_width(report: Path, show: Open, width: int, scheme: str) -> None:
    tab = show(report, width=width, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


PAIRS = (
    ("ink", "paper"),
    ("soft", "paper"),
    ("soft", "card"),
    ("soft", "wash"),
    ("alarm", "alarmwash"),
    ("alarm", "wash"),
    ("ink", "wash"),
    ("onhot", "hot"),
)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG defines it."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(report: Path, show: Open, scheme: str) -> None:
    """WCAG AA, 4.5 to 1, for all text on its ground."""
    tab = show(report, scheme=scheme)
    for pair in PAIRS:
        found = [
            tab.evaluate("n => getComputedStyle(document.documentElement).getPropertyValue(n).trim()", f"--{name}")
            for name in pair
        ]
        dark, light = sorted(map(luminance, found))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, pair


def test_hostile_text_does_nothing(tmp_path: Path, show: Open) -> None:
    run = evil_run(tmp_path / "run")
    tab = show(page.render([run.path], tmp_path / "evil.html"), width=390)
    assert tab.locator("img").count() == 0
    assert "alert(1)" in tab.locator("#prompt").inner_text()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.locator("#epoch").fill("2")
    tab.locator(".sentence .tok").first.hover()


def test_the_policy_blocks_what_is_not_the_pages_own(report: Path, tmp_path: Path, chromium: Browser) -> None:
    """A script that got into the page all the same does not run: the policy is not only written, it works."""
    broken = tmp_path / "broken.html"
    broken.write_text(
        report.read_text(encoding="utf-8").replace("<main>", "<main><script>document.title='owned'</script>")
    )
    tab = chromium.new_page()
    blocked: list[str] = []
    tab.on("console", lambda message: blocked.append(message.text))
    tab.goto(broken.as_uri())
    assert tab.title() != "owned"
    assert any("Content Security Policy" in text for text in blocked)
    tab.close()


@pytest.mark.parametrize("redact", [False, True])
def test_a_bare_run_loads_too(tmp_path: Path, show: Open, demo: Path, redact: bool) -> None:
    tab = show(page.render([demo / "target", demo / "etw"], tmp_path / "two.html", redact))
    assert tab.locator("h1").inner_text() == "target and etw"


def test_it_prints_to_pdf(report: Path, show: Open) -> None:
    document = show(report).pdf(format="A4")
    assert document.startswith(b"%PDF")
    assert document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") < 60


def test_a_screenshot_is_not_blank(report: Path, show: Open) -> None:
    """Gross breakage: an unstyled or empty page has few colours, or none of the heat."""
    tab = show(report)
    tab.locator("#tokenview").scroll_into_view_if_needed()
    assert len(tab.screenshot()) > 40_000


@pytest.mark.slow
def test_four_thousand_records_stay_below_five_megabytes_and_load_in_seconds(tmp_path: Path, show: Open) -> None:
    """Every section there is, verdicts and attacks among them; a page this size is read in about a second."""
    folder = synthetic.demo(tmp_path / "demo", records=4000, epochs=5)
    for name in ("graddiff", "wga", "etw"):
        judged(runfolder.open(folder.path / name))
        attacked(runfolder.open(folder.path / name), "leaks", relearn=0.62)
    out = page.render([folder.path], tmp_path / "report.html", comparing=comparison.for_page)
    assert out.stat().st_size < 5_000_000
    tab = show(out)
    took = tab.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart")
    print(f"{out.stat().st_size:,} bytes, loaded in {took / 1000:.1f} s")
    assert took < 20_000, "milliseconds, on a machine that may be busy"
    assert "200 of 4,000 records, evenly spaced." in tab.locator("#tokens .caption").first.inner_text()
    assert tab.locator(".verdict").count() == 3
    assert "Worst attack: relearn" in tab.locator(".card").last.inner_text()
    tab.locator("#epoch").fill("5")
    assert tab.locator("#epochvalue").inner_text() == "5"
