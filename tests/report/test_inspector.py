"""The inspector's page: what it says, that nothing in it runs, and in a real browser that all of it works."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from expunge.data.annotations import Manifest
from expunge.errors import DataError
from expunge.report import inspector
from expunge.report.spans import Shown
from tests.report import annotated
from tests.report.annotated import RECORDS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

Open = Callable[..., "Page"]


def shown_first() -> Shown:
    manifest = Manifest("chat", "1.2", {"model": "some<b>model"}, "abcdef0123456789", 6)
    return Shown.of("first.jsonl", RECORDS, annotated.first(), manifest)


def shown_second() -> Shown:
    return Shown.of("second", RECORDS, annotated.second())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inspector")


@pytest.fixture(scope="module")
def single(folder: Path) -> Path:
    return inspector.render(folder / "one.html", RECORDS, [shown_first()])


@pytest.fixture(scope="module")
def double(folder: Path) -> Path:
    return inspector.render(folder / "two.html", RECORDS, [shown_first(), shown_second()])


@pytest.fixture(scope="module")
def large(folder: Path) -> Path:
    """4,000 records of TOFU's size, two annotations."""
    records, annotations = annotated.many(4000)
    return inspector.render(folder / "large.html", records, [Shown.of(name, records, annotations) for name in "ab"])


def test_it_says_what_the_annotation_is(single: Path) -> None:
    page = single.read_text(encoding="utf-8")
    assert "<h1>first.jsonl</h1>" in page
    assert "7 spans in 6 records: 21 % of the words are called unwanted." in page
    assert "<dt>identifier</dt><dd>chat 1.2</dd>" in page
    assert "model=some&lt;b&gt;model" in page
    assert "nothing unwanted in 1 record<" in page
    assert "1 span beginning or ending inside a word<" in page


def test_it_says_how_two_agree(double: Path) -> None:
    page = double.read_text(encoding="utf-8")
    assert "<h1>first.jsonl against second</h1>" in page
    # plain 1 1 1, overlap 2 0 0, evil 0 1 0, arabic 0 1 2, nothing 0 0 1: 3 of 10 words that either marks
    assert "Of what either marks, both mark 30 %." in page
    assert "Over the 5 records that both cover" in page
    assert re.search(r'Jaccard<span class="what">[^<]*</span></th><td class="num">0\.30</td>', page)
    assert "second: 1 record of the data not annotated" in page


def test_nothing_of_the_data_can_run(single: Path, double: Path) -> None:
    """Two script elements and no more, both ours; no text of a record stands anywhere unescaped."""
    for file in (single, double):
        page = file.read_text(encoding="utf-8")
        assert page.count("<script") == page.count("</script>") == 2
        assert "<img" not in page
        assert "onerror=alert" not in page.replace(r"\u003cimg src=x onerror=alert(1)\u003e", "")
        assert "\u202e" not in page
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
        assert policy is not None
        assert policy[1].startswith("default-src &#39;none&#39;; style-src &#39;sha256-")
        assert "unsafe" not in policy[1]
        assert not re.search(r"(?:src|href)=[\"'](?!#|data:,)", page)


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one annotation or two side by side; 3 were given"):
        inspector.render(tmp_path / "x.html", RECORDS, [shown_first()] * 3)
    empty = Shown.of("none", RECORDS, [])
    with pytest.raises(DataError, match=r"annotation 'none' covers none of the 6 records"):
        inspector.render(tmp_path / "x.html", RECORDS, [empty])
    assert not list(tmp_path.iterdir())


def test_annotations_of_different_records_are_shown_side_by_side_all_the_same(tmp_path: Path) -> None:
    parts = [Shown.of(f"part {i}", RECORDS, annotated.first()[i::2]) for i in (0, 1)]
    page = inspector.render(tmp_path / "x.html", RECORDS, parts).read_text(encoding="utf-8")
    assert "They have no record in common." in page


def test_a_large_page_stays_small(large: Path) -> None:
    assert large.stat().st_size < 5_000_000


@pytest.fixture
def show(chromium: Browser) -> Iterator[Open]:
    """Opens a file; at the end there must have been no console line, no error, no dialog, and one request: the file."""
    seen: list[str] = []
    pages: list[Page] = []

    def open_page(file: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> Page:
        tab = chromium.new_page(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            reduced_motion="reduce",
        )
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


def record(tab: Page, key: str) -> Locator:
    return tab.locator(".rec").filter(has=tab.locator(".id", has_text=re.compile(f"^{key}$")))


def settled(tab: Page, records: int) -> None:
    """Waits until what was typed has been searched for; then so many records are listed."""
    tab.wait_for_selector("#list:not([aria-busy=true])")
    assert tab.locator(".rec").count() == records


def ids(tab: Page) -> list[str]:
    return tab.locator(".rec .id").all_inner_texts()


@pytest.mark.browser
def test_a_script_in_a_record_is_text(single: Path, show: Open) -> None:
    tab = show(single)
    body = record(tab, "evil").locator(".body").inner_text()
    assert body == "The answer is <script>document.title='owned'</script> & ⟨U+202E⟩reversed⟨U+202C⟩."
    assert record(tab, "evil").locator(".question-text").inner_text() == "</script><img src=x onerror=alert(1)>?"
    assert tab.title() == "first.jsonl · expunge inspector (contains forget text)"
    assert tab.locator("img").count() == 0
    record(tab, "evil").locator(".sp").hover()
    assert tab.locator("#tip").inner_text().split("\n") == ["unwanted, weight 1", "<b>llm</b>, answer 14–53"]


@pytest.mark.browser
def test_spans_are_coloured_by_label_and_weight(single: Path, show: Open) -> None:
    tab = show(single)
    marks = record(tab, "overlap").locator(".body .sp")
    assert marks.all_inner_texts() == ["Bo ", "Larsen", " paints"]
    colours = [mark.evaluate("n => getComputedStyle(n).backgroundColor") for mark in marks.all()]
    assert colours[0] != colours[1] == colours[2]  # the greatest weight decides where two overlap
    strengths = [float(mark.evaluate("n => parseFloat(n.style.getPropertyValue('--heat'))")) for mark in marks.all()]
    assert strengths[0] < strengths[1] == strengths[2]
    marks.nth(1).hover()
    told = tab.locator("#tip p")
    assert [text.split("\n")[0] for text in told.all_inner_texts()] == ["unwanted, weight 0.25", "place, weight 1"]
    assert record(tab, "plain").locator(".amount").inner_text() == "25 % of words"
    assert record(tab, "arabic").locator(".body").evaluate("n => getComputedStyle(n).direction") == "rtl"
    assert "mono" in record(tab, "code").locator(".body").evaluate("n => getComputedStyle(n).fontFamily").lower()


@pytest.mark.browser
def test_search_filter_and_order(single: Path, show: Open) -> None:
    tab = show(single)
    tab.keyboard.press("/")
    tab.keyboard.type("KUWAIT city")
    settled(tab, 1)
    assert ids(tab) == ["plain"]
    assert tab.locator(".hit").all_inner_texts() == ["Kuwait City"]
    assert tab.locator("#found").inner_text() == "1 of 6 records"
    tab.keyboard.press("Escape")
    assert len(ids(tab)) == 6
    tab.fill("#find", "no such words")
    tab.wait_for_selector("text=No record fits.")
    tab.fill("#find", "")
    settled(tab, 6)
    for value, expected in [
        ("none0", ["nothing"]),
        ("midword", ["code"]),
        ("overlap", ["overlap"]),
        ("label1", ["plain"]),
    ]:
        tab.select_option("#filter", value)
        assert ids(tab) == expected
    tab.select_option("#filter", "all")
    tab.select_option("#sort", "low")
    assert ids(tab)[0] == "nothing"
    tab.locator(".phrase", has_text="Kuwait City").click()
    assert ids(tab) == ["plain"]
    tab.fill("#find", "")
    tab.locator(".note", has_text="inside a word").click()
    settled(tab, 1)
    assert ids(tab) == ["code"]


@pytest.mark.browser
def test_bars_show_their_records(single: Path, show: Open) -> None:
    tab = show(single)
    bar = tab.locator(".bin[aria-label^='25 to 30']")
    assert bar.get_attribute("aria-label") == "25 to 30 %: 2 records"
    bar.click()
    assert ids(tab) == ["plain", "code"]
    bar.click()
    assert len(ids(tab)) == 6


@pytest.mark.browser
def test_labels_can_be_hidden(single: Path, show: Open) -> None:
    tab = show(single)
    assert record(tab, "plain").locator(".sp").all_inner_texts() == ["was", "Kuwait City"]
    tab.locator("#legend button", has_text="general").click()
    assert record(tab, "plain").locator(".sp").all_inner_texts() == ["Kuwait City"]
    assert tab.locator("#legend button", has_text="general").get_attribute("aria-pressed") == "false"


@pytest.mark.browser
def test_two_side_by_side_and_in_one_text(double: Path, show: Open) -> None:
    tab = show(double)
    sides = record(tab, "plain").locator(".pair > div")
    assert sides.nth(0).locator(".sp").all_inner_texts() == ["was", "Kuwait City"]
    assert sides.nth(1).locator(".sp").all_inner_texts() == ["City", "1956"]
    boxes = [side.bounding_box() for side in sides.all()]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] == boxes[1]["y"]
    assert record(tab, "code").locator(".pair > div").nth(1).locator(".none").inner_text() == "not annotated"
    assert record(tab, "plain").locator(".match").inner_text() == "Jaccard 0.33"

    tab.check("input[value=over]", force=True)
    one = record(tab, "plain").locator(".body .sp")
    assert [(m.inner_text(), m.get_attribute("class")) for m in one.all()] == [
        ("Kuwait ", "sp only0"), ("City", "sp both"), ("1956", "sp only1"),
    ]  # fmt: skip
    tab.select_option("#filter", "same")
    assert ids(tab) == ["overlap"]
    tab.select_option("#filter", "lone")
    assert ids(tab) == ["code"]
    tab.select_option("#filter", "all")
    tab.select_option("#sort", "least")
    assert ids(tab)[-1] == "code"
    assert ids(tab)[-2] == "overlap"


@pytest.mark.browser
def test_the_keyboard_reaches_every_record_and_span(single: Path, show: Open) -> None:
    tab = show(single)
    tab.keyboard.press("j")
    assert tab.evaluate("document.activeElement.querySelector('.id').textContent") == "plain"
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.locator(".sp.at").inner_text() == "Kuwait City"
    assert tab.locator("#said").inner_text() == "Kuwait City: unwanted, weight 1, llm, answer 16–27"
    assert tab.locator("#tip").is_visible()
    tab.keyboard.press("Escape")
    assert tab.locator("#tip").is_hidden()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowRight")
    assert tab.locator(".sp.at").inner_text() == "Bo "
    tab.keyboard.press("End")
    assert tab.evaluate("document.activeElement.querySelector('.id').textContent") == "nothing"
    tab.keyboard.press("k")
    assert tab.locator(".rec.on .id").all_inner_texts() == ["code"]
    assert tab.locator(".rec[tabindex='0']").count() == 1


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(double: Path, show: Open, scheme: str) -> None:
    tab = show(double, width=360, height=740, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    sides = [side.bounding_box() for side in record(tab, "plain").locator(".pair > div").all()]
    assert sides[0] is not None
    assert sides[1] is not None
    assert sides[0]["y"] + sides[0]["height"] <= sides[1]["y"]
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(250, 249, 246)" if scheme == "light" else "rgb(22, 21, 19)")


@pytest.mark.browser
def test_many_records_are_drawn_as_they_are_looked_at(large: Path, show: Open) -> None:
    tab = show(large)
    assert tab.locator(".rec").count() == 4000
    assert tab.locator(".rec .pair").count() < 100
    tab.keyboard.press("j")
    tab.keyboard.press("End")
    assert tab.evaluate("document.activeElement.querySelector('.id').textContent") == "r03999"
    assert tab.locator(".rec:focus .sp").count() == 6
    assert tab.locator(".rec:focus .body").first.is_visible()
    assert tab.locator(".rec .pair").count() < 200
    tab.fill("#find", "number 1234?")
    settled(tab, 1)
    assert ids(tab) == ["r01234"]
