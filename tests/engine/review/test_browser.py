"""The page in a real browser: what a person does with it, and what the journal says then."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing

import pytest

from review_samples import CLASSES, write_pictures, write_tags
from tai_engine.review.collection import Collection
from tai_engine.review.decisions import Decisions
from tai_engine.review.journal import Journal, read_decisions
from tai_engine.review.report_folder import estimate_report, write_report

# Each is quick, but together they take a minute.
pytestmark = [pytest.mark.browser, pytest.mark.slow]


def cell(page, place):
    return page.locator(f'.cell[data-place="{place}"]')


def chip(page, place, tag):
    return cell(page, place).locator(f'.chip[data-tag="{tag}"]')


def expect_kind(page, place, tag, kind):
    """Wait until a chip is of a kind: open, weak, accept, reject, add."""
    cell(page, place).locator(f'.chip.{kind}[data-tag="{tag}"]').wait_for()


def expect_current(page, place):
    page.locator(f'.cell.current[data-place="{place}"]').wait_for()


def expect_text(page, selector, text):
    page.locator(selector, has_text=re.compile(text)).wait_for()


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def entries(site):
    return [json.loads(line) for line in site.journal.read_text(encoding="utf-8").splitlines()[1:]]


def test_clicking_on_chips(serve, open_page, forty):
    site = serve(forty)
    page = open_page(site.address)
    assert page.url.endswith("/")  # the token is gone
    expect_kind(page, 0, "dog", "open")
    expect_kind(page, 0, "cat", "weak")
    cell(page, 0).locator(".frame.loaded").wait_for()
    chip(page, 0, "dog").locator(".body").click()
    expect_kind(page, 0, "dog", "accept")
    assert site.decisions["00.jpg"].present == ("dog",)
    cell(page, 0).locator("xpath=self::*[contains(@class, 'decided')]").wait_for()
    chip(page, 1, "dog").locator(".no").click()
    expect_kind(page, 1, "dog", "reject")
    expect_current(page, 1)
    chip(page, 0, "dog").locator(".body").click()
    expect_kind(page, 0, "dog", "open")
    assert dict(site.decisions["01.jpg"].verdicts) == {"dog": "reject"}
    assert "00.jpg" not in site.decisions
    expect_text(page, "#progress", "1 of 40 pictures decided")


def test_all_with_the_keyboard(serve, open_page, forty):
    site = serve(forty)
    page = open_page(site.address)
    expect_current(page, 0)
    press(page, "a")
    expect_kind(page, 0, "dog", "accept")
    expect_kind(page, 0, "cat", "weak")  # what misses its threshold is not accepted with the rest
    press(page, "ArrowRight", ".", ".", "a", "Escape")
    expect_kind(page, 1, "cat", "accept")
    press(page, "r")
    expect_kind(page, 1, "dog", "reject")
    press(page, "ArrowRight", "e")
    expect_kind(page, 2, "dog", "reject")
    press(page, "ArrowRight", " ")
    page.keyboard.type("fo")
    expect_text(page, "#tag-options [aria-selected=true]", "^fox$")
    press(page, "Enter")
    expect_kind(page, 3, "fox", "add")
    expect_text(page, "#favourites button:nth-child(2)", "cat")
    press(page, "2")
    expect_kind(page, 3, "cat", "accept")
    press(page, "2")
    expect_kind(page, 3, "cat", "weak")
    press(page, "Shift+2")
    expect_kind(page, 3, "cat", "reject")
    press(page, "u")
    expect_kind(page, 3, "cat", "weak")
    press(page, "Control+z")
    expect_kind(page, 3, "cat", "accept")
    press(page, "y")
    expect_kind(page, 3, "cat", "weak")
    expect_text(page, "#toast", "Done again: clear cat, 1 picture")
    press(page, "Home", "n")
    expect_current(page, 3)  # the first three are decided; of this one the dog is not
    press(page, "c")
    cell(page, 3).locator('.chip[data-tag="fox"]').wait_for(state="detached")
    press(page, "End")
    expect_current(page, 39)
    press(page, "Shift+n")
    expect_current(page, 38)
    decisions = site.decisions
    assert {item_id: dict(d.verdicts) for item_id, d in decisions.items()} == {
        "00.jpg": {"dog": "accept"},
        "01.jpg": {"cat": "accept", "dog": "reject"},
        "02.jpg": {},
    }
    assert decisions["02.jpg"].is_none
    assert {d.by for d in decisions.values()} == {"anna"}


def test_the_keys_1_to_9_may_be_chosen(serve, open_page, forty):
    site = serve(forty)
    page = open_page(site.address)
    press(page, "Alt+1")
    page.keyboard.type("fox")
    press(page, "Enter")
    expect_text(page, "#favourites button:nth-child(1)", "fox")
    press(page, "1")
    expect_kind(page, 0, "fox", "add")
    page.reload()
    expect_text(page, "#favourites button:nth-child(1)", "fox")
    assert site.decisions.favourites[0] == "fox"


def test_free_words_only_where_they_are_allowed(serve, open_page, forty):
    page = open_page(serve(forty).address)
    press(page, "t")
    page.keyboard.type("dachs")
    expect_text(page, "#tag-hint", "No word")
    press(page, "Enter", "Escape")
    site = serve(forty, free_words=True, name="free")
    page = open_page(site.address)
    press(page, "t")
    page.keyboard.type("dachs  hund")
    press(page, "Shift+Enter")
    page.keyboard.type("owl")
    press(page, "Enter")
    expect_kind(page, 0, "dachs hund", "add")
    expect_kind(page, 0, "owl", "accept")
    assert site.decisions["00.jpg"].present == ("dachs hund", "owl")


def test_many_at_once_are_one_act(serve, open_page, forty):
    site = serve(forty)
    page = open_page(site.address)
    press(page, "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight")
    expect_text(page, "#selected-count", "3 selected")
    press(page, "a")
    for place in (1, 2, 3):
        expect_kind(page, place, "dog", "accept")
    assert [e["act"] for e in entries(site)] == ["decide"]
    assert entries(site)[0]["changes"] == [{"ids": ["01.jpg", "02.jpg", "03.jpg"], "accept": ["dog"]}]
    press(page, "u")
    expect_kind(page, 2, "dog", "open")
    assert dict(site.decisions) == {}
    press(page, "Escape")
    page.locator("#selection").wait_for(state="hidden")
    cell(page, 5).locator(".frame").click(modifiers=["Control"])
    cell(page, 7).locator(".frame").click(modifiers=["Control"])
    cell(page, 7).locator('.chip[data-tag="owl"] .body').click()  # a chip of a selected picture means all
    expect_kind(page, 5, "owl", "accept")
    press(page, "Control+a")
    expect_text(page, "#selected-count", "40 selected")
    page.locator("#bulk-none").click()
    expect_text(page, "#progress", "40 of 40")
    assert all(d.is_none for d in site.decisions.values())
    assert len(site.decisions) == 40
    page.locator("#undo").click()
    expect_text(page, "#progress", "0 of 40")
    assert set(site.decisions) == {"05.jpg", "07.jpg"}


def test_the_order_ends_cleanly(serve, open_page, forty):
    page = open_page(serve(forty).address)
    press(page, "End")
    expect_text(page, ".end", "That is all. 40 pictures here are still to do.")
    press(page, "n")
    expect_text(page, "#toast", "40 pictures on the other side|39 pictures|40 pictures")
    expect_current(page, 39)
    press(page, "n")
    expect_current(page, 0)
    press(page, "Control+a", "a", "Escape")
    expect_text(page, "#progress", "40 of 40")  # the next undecided one is asked for when all of them are answered
    press(page, "n")
    expect_text(page, "#toast", "Everything here is decided")
    press(page, "End")
    expect_text(page, ".end", "all of it is decided")


def test_filters_and_the_state_in_the_address(serve, open_page, forty):
    page = open_page(serve(forty).address)
    press(page, "a", "ArrowRight", "e")
    expect_text(page, "#progress", "2 of 40")
    page.select_option("#filter-state", "decided")
    expect_text(page, "#count", "2 pictures, 0 to do")
    page.select_option("#filter-state", "open")
    expect_text(page, "#count", "38 pictures, 38 to do")
    page.fill("#filter-from", "0.8")
    page.locator("#filter-from").press("Enter")
    expect_text(page, "#count", "10 pictures")  # 0.80 to 0.89
    page.fill("#filter-tag", "dog")
    page.locator("#filter-tag").press("Enter")
    page.select_option("#filter-order", "surest")
    expect_text(page, "#count", "10 pictures")
    press(page, "Escape")
    page.locator(".cell.current").focus()
    press(page, "ArrowRight", "Enter")
    expect_text(page, "#large-name", "38.jpg")
    assert set(page.url.partition("#")[2].split("&")) == {
        "tag=dog", "state=open", "from=0.8", "order=surest", "at=38", "large=1",
    }  # fmt: skip
    for other in (page, open_page(page.url, beside=page)):
        other.reload()
        expect_text(other, "#large-name", "38.jpg")
        expect_text(other, "#large-state", "2 of 10 pictures")
        press(other, "ArrowRight")
        expect_text(other, "#large-name", "37.jpg")
        press(other, "Enter")
        other.locator("#large").wait_for(state="hidden")
        expect_current(other, 2)
    page.goto(page.url.partition("#")[0] + "#state=nonsense&order=&at=-1&tag=yak&large=2")
    expect_text(page, "#count", "0 pictures")
    expect_text(page, ".end", "No picture is like that")
    press(page, "a", "n", "ArrowDown", "Enter", "e", ".")  # nothing to act on


def test_two_tabs_and_a_reload_agree(serve, open_page, forty):
    site = serve(forty)
    first = open_page(site.address)
    beside = open_page(first.url, beside=first)
    elsewhere = open_page(site.address)  # another browser
    press(first, "a")
    for page in (first, beside, elsewhere):
        expect_kind(page, 0, "dog", "accept")
    press(elsewhere, "ArrowRight", "e")
    for page in (first, beside, elsewhere):
        expect_kind(page, 1, "dog", "reject")
        page.locator("#undo:enabled").wait_for()
    press(beside, "u")
    for page in (first, beside, elsewhere):
        expect_kind(page, 1, "dog", "open")
        page.reload()
        expect_kind(page, 1, "dog", "open")
        expect_kind(page, 0, "dog", "accept")
        expect_text(page, "#progress", "1 of 40")
    assert set(site.decisions) == {"00.jpg"}


def test_an_undo_in_two_tabs_at_once_undoes_one_act(serve, open_page, forty, problems):
    site = serve(forty)
    first, second = open_page(site.address), open_page(site.address)
    press(first, "a", "ArrowRight", "a")
    expect_text(second, "#progress", "2 of 40")
    # The second does not hear of what the first does meanwhile.
    second.route("**/data/changes.json*", lambda route: route.abort())
    press(first, "u")
    expect_text(first, "#progress", "1 of 40")
    press(second, "u")
    expect_text(second, "#toast", "another tab")
    assert set(site.decisions) == {"00.jpg"}
    second.unroute("**/data/changes.json*")
    expect_text(second, "#progress", "1 of 40")
    assert all("409" in problem or "changes.json" in problem or "ERR_FAILED" in problem for problem in problems)
    problems.clear()


def test_the_large_view(serve, open_page, forty):
    site = serve(forty)
    page = open_page(site.address)
    cell(page, 3).locator(".frame").dblclick()
    expect_text(page, "#large-name", "03.jpg")
    page.locator('#large-chips .chip[data-tag="cat"] .body').click()
    page.locator('#large-chips .chip.accept[data-tag="cat"]').wait_for()
    expect_text(page, "#large-state", "4 of 40 pictures · not all decided, by anna")
    expect_text(page, "#large-chips li:nth-child(1) .details", "score 3, threshold 0.5")
    press(page, "ArrowRight", "e")
    expect_text(page, "#large-state", "none of these")
    page.locator("#large-next").click()
    expect_text(page, "#large-name", "05.jpg")
    page.locator("#large-close").click()
    expect_current(page, 5)
    assert set(site.decisions) == {"03.jpg", "04.jpg"}


class Corner:
    """Like the tag in the lower right corner of the middle square of a picture that is three times as wide as high."""

    tags = ("dog",)

    def of(self, item_id, tag, size):
        assert item_id == "00.jpg"
        return {"grid": [[0.1, 0.1], [0.1, 0.3]], "box": [1 / 3, 0, 2 / 3, 1]}


def test_the_heatmap_of_a_tag_that_is_pointed_at(serve, open_page, tmp_path):
    tags = write_tags(tmp_path / "t.parquet", [("00.jpg", "dog", 1.0, 0.5), ("00.jpg", "cat", 1.0, 0.4)])
    collection = Collection.open(tags, write_pictures(tmp_path / "p", ["00.jpg"], (300, 100)))
    page = open_page(serve(collection, Corner()).address)
    cell(page, 0).locator(".frame.loaded").wait_for()
    chip(page, 0, "dog").hover()
    page.locator(".heat").wait_for()
    middles = page.evaluate(
        """() => {
            const heat = document.querySelector(".heat"), pen = heat.getContext("2d");
            const { data, width, height } = pen.getImageData(0, 0, heat.width, heat.height);
            return [[0.2, 0.9], [0.36, 0.05], [0.64, 0.95], [0.8, 0.95]].map(
                ([x, y]) => data[4 * (Math.floor(y * height) * width + Math.floor(x * width)) + 3]);
        }"""
    )
    assert middles[0] == middles[3] == 0  # beside what the model sees
    assert middles[1] < 20
    assert middles[2] > 170
    box = page.evaluate(
        "() => ['.heat', '.frame img'].map((s) => { const r = document.querySelector(s).getBoundingClientRect();"
        " return [r.width / r.height, r.top + r.height / 2]; })"
    )
    assert box[0][0] == pytest.approx(3, abs=0.1)  # of the picture, not of its frame
    assert box[0][1] == pytest.approx(box[1][1], abs=1)
    chip(page, 0, "cat").hover()
    page.locator(".heat").wait_for(state="hidden")
    press(page, "Enter", ".")
    page.locator("#large-heat").wait_for()
    press(page, ".")
    page.locator("#large-heat").wait_for(state="hidden")


def test_odd_names_are_text(serve, open_page, tmp_path):
    names = ["<img src=x onerror=alert(1)>.jpg", "a&b \"c\" 'd' 日本.jpg", "%2e%2e/x.jpg"]
    odd = ("<script>alert(2)</script>", "</script>", "constructor")
    rows = [(name.replace("%2e", "%2e"), tag, 1.0, 0.5) for name in names for tag in odd]
    tags = write_tags(tmp_path / "t.parquet", rows, odd)
    collection = Collection.open(tags, write_pictures(tmp_path / "p", names))
    site = serve(collection)
    page = open_page(site.address)
    for place in range(3):
        cell(page, place).locator(".frame.loaded").wait_for()
        cell(page, place).locator(".chip").nth(2).wait_for()
    press(page, "a", "Enter")
    expect_text(page, "#large-name", re.escape(names[0]))
    page.locator("#large-chips .chip.accept").nth(2).wait_for()
    assert set(site.decisions[names[0]].present) == set(odd)
    write_report(
        collection, tmp_path / "report", site.decisions, title="</script><b>", side=64, workers=1,
        estimate=estimate_report(collection, 64, 1),
    )  # fmt: skip
    report = open_page((tmp_path / "report" / "index.html").as_uri())
    expect_text(report, "#title", re.escape("</script><b>"))
    expect_kind(report, 0, odd[2], "accept")


def test_ten_thousand_pictures_are_scrolled_through_with_few_in_the_page(serve, open_page, tmp_path):
    folder = write_pictures(tmp_path / "p", ["0.jpg"])
    names = [f"{n}.jpg" for n in range(10_000)]
    for name in names[1:]:
        os.link(folder / "0.jpg", folder / name)
    rows = [(name, CLASSES[n % 4], 1.0, 0.5 + n / 30_000) for n, name in enumerate(names)]
    collection = Collection.open(write_tags(tmp_path / "t.parquet", rows), folder)
    site = serve(collection)
    page = open_page(site.address)
    expect_text(page, "#count", "10,000 pictures, 10,000 to do")
    press(page, "End")
    expect_current(page, 9999)
    cell(page, 9999).locator(".frame.loaded").wait_for()
    assert page.locator(".cell").count() < 100
    press(page, "a")
    expect_kind(page, 9999, CLASSES[9999 % 4], "accept")
    page.evaluate("() => { const g = document.getElementById('grid'); g.scrollTop = g.scrollHeight / 2; }")
    cell(page, 9999).wait_for(state="detached")
    page.locator(".cell .frame.loaded").nth(5).wait_for()
    middle = int(page.locator(".cell").first.get_attribute("data-place"))
    assert 4800 < middle < 5200
    assert page.locator(".cell").count() < 100
    page.fill("#filter-tag", "owl")
    page.locator("#filter-tag").press("Enter")
    expect_text(page, "#count", "2,500 pictures")
    press(page, "Escape", "Control+a", "e")
    expect_text(page, "#progress", "2,501 of 10,000")
    assert len(site.decisions) == 2501
    press(page, "u")
    expect_text(page, "#progress", "1 of 10,000")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(serve, open_page, forty, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page = open_page(serve(forty).address, color_scheme=scheme)
    press(page, "a", "ArrowRight", "e", "ArrowRight", ".", "r", "ArrowRight", "s", "1")
    expect_kind(page, 3, "dog", "accept")
    press(page, "t")
    page.keyboard.type("fox")
    press(page, "Enter")
    expect_kind(page, 3, "fox", "add")
    cell(page, 3).locator(".frame.loaded").wait_for()

    def serious(what):
        found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        return [
            (what, v["id"], v["help"], [node["html"][:150] for node in v["nodes"]][:3])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]

    problems = serious("grid")
    press(page, "Enter")
    expect_text(page, "#large-name", "03.jpg")
    problems += serious("large view")
    press(page, "t")
    problems += serious("tag box")
    press(page, "Escape", "Escape", "?")
    problems += serious("keys")
    assert problems == []


@pytest.mark.parametrize("width", [320, 700, 1600])
def test_every_width_has_all_in_sight(serve, open_page, forty, width):
    page = open_page(serve(forty).address, width=width, height=700)
    press(page, "s")
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate(
        "() => document.getElementById('grid').scrollWidth <= document.getElementById('grid').clientWidth"
    )
    assert page.locator(".row").first.locator(".cell").count() >= 2
    press(page, "Enter")
    assert page.evaluate("() => document.getElementById('large').scrollWidth <= window.innerWidth")
    for selector in ("#large-picture", "#large-next", "#large-close"):
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= 700


def test_the_page_of_keys_names_every_key(serve, open_page, forty):
    page = open_page(serve(forty).address)
    press(page, "?")
    shown = set(page.locator("#keys kbd").all_inner_texts())
    assert {"A", "R", "E", "C", "N", "S", "T", "U", "Y", "Space", "1", "9", "?", "Enter", "Esc", ",", ".", "F"} <= shown
    press(page, "?")
    page.locator("#keys").wait_for(state="hidden")


def test_a_report_opens_without_a_server_and_changes_nothing(open_page, forty, tmp_path):
    decisions = Decisions()
    changes = [{"ids": ["01.jpg"], "accept": ["dog"], "add": ["fox"]}, {"ids": ["02.jpg"], "none": True}]
    decisions.apply(
        {"revision": 1, "act": "decide", "by": "ben", "at": "2030-01-01T00:00:00+00:00", "changes": changes}
    )
    write_report(
        forty, tmp_path / "r", decisions, title="tags", side=64, workers=1, estimate=estimate_report(forty, 64, 1)
    )
    page = open_page((tmp_path / "r" / "index.html").as_uri() + "#at=1")
    expect_current(page, 1)
    expect_kind(page, 1, "fox", "add")
    expect_text(page, "#progress", "2 of 40")
    cell(page, 1).locator(".frame.loaded").wait_for()
    press(page, "a", "e", "1", "t", "u", " ")
    assert page.locator("dialog[open]").count() == 0
    expect_kind(page, 1, "cat", "weak")
    assert page.locator("button.body").count() == 0
    for selector in ("#undo", "#favourites", "#bulk-accept", "#large-tag"):
        assert not page.locator(selector).is_visible()
    press(page, "Enter")
    expect_text(page, "#large-name", "01.jpg")
    expect_text(page, "#large-state", "by ben")
    assert page.evaluate("() => document.getElementById('large-picture').naturalWidth") == 64
    press(page, "Escape", "?")
    assert page.locator("#keys kbd", has_text="PageUp").is_visible()
    assert page.locator("#keys kbd", has_text="Space").count() == 0
    press(page, "Escape")
    page.select_option("#filter-state", "none")
    expect_text(page, "#count", "1 picture, 0 to do")


def test_a_picture_that_cannot_be_shown_says_why(serve, open_page, tmp_path, problems):
    folder = write_pictures(tmp_path / "p", ["0.jpg"])
    (folder / "1.jpg").write_bytes(b"no picture")
    tags = write_tags(tmp_path / "t.parquet", [(f"{n}.jpg", "dog", 1.0, 0.5) for n in range(3)])
    page = open_page(serve(Collection.open(tags, folder)).address)
    expect_text(page, "#count", "2 pictures")
    cell(page, 1).locator(".frame.broken").wait_for()
    press(page, "ArrowRight", "Enter")
    expect_text(page, "#large-problem", "cannot be shown: unknown-format")
    press(page, "Escape")
    page.select_option("#filter-state", "missing")
    expect_text(page, "#count", "1 picture")
    cell(page, 0).locator(".frame.broken").wait_for()
    assert problems
    assert all("404" in problem for problem in problems)
    problems.clear()


def test_a_server_that_is_killed_in_mid_click_loses_nothing_that_it_answered(open_page, forty, tmp_path, problems):
    names = [f"{n}.jpg" for n in range(30)]
    folder = write_pictures(tmp_path / "p", names)
    tags = write_tags(tmp_path / "tags.parquet", [(name, "dog", 1.0, 0.5) for name in names])
    journal = tmp_path / "tags.parquet.decisions.jsonl"
    code = "from tai_engine.cli.main import main; main()"
    command = [sys.executable, "-c", code, "review", str(tags), "--images", str(folder), "--port", "0", "--json",
               "--thumbnail-cache", str(tmp_path / "cache")]  # fmt: skip

    def start():
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return server, json.loads(server.stdout.readline())["address"]

    answered = set()
    for round_ in range(2):
        server, address = start()
        try:
            page = open_page(address)
            assert {int(c) for c in page.evaluate(
                "() => [...document.querySelectorAll('.cell.decided')].map((c) => c.dataset.place)"
            )} >= answered or round_ == 0  # fmt: skip
            press(page, "n")
            for _ in range(8):
                press(page, "a", "ArrowRight")
            page.locator(".cell.decided").nth(len(answered) + 1).wait_for()
            server.send_signal(signal.SIGKILL)
            press(page, "a", "ArrowRight", "a")
            expect_text(page, "#banner", "ot saved")
            answered |= {
                int(place)
                for place in page.evaluate(
                    "() => [...document.querySelectorAll('.cell.decided')].map((c) => c.dataset.place)"
                )
            }
        finally:
            server.kill()
            server.wait()
        page.close()  # it goes on asking for a server that is gone
        kept = set(read_decisions(journal))
        assert {names[place] for place in answered} <= kept
    with closing(Journal(journal, tags_file="t", tags_sha256=read_decisions(journal).tags_sha256, by="x")) as whole:
        assert len(whole.decisions) >= len(answered)
    problems.clear()
