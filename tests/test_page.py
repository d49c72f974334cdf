"""ports/js/index.html, driven in headless Chromium as a user does, against what the package finds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, PAGE, Browser

import tritcodec as tc

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "fixtures"
CASES = {case["id"]: case for case in json.loads((FIXTURES / "manifest.json").read_text("utf-8"))["cases"]}
pytestmark = pytest.mark.xdist_group("ports")  # one browser
HTML = '<img src=x onerror="globalThis.broken=1"><script>globalThis.broken=2</script>&amp;'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium with the page open; skips, loudly, where there is none."""
    if CHROMIUM is None:
        pytest.skip("chromium is MISSING, so that the page is NOT TESTED")
    with Browser() as started:
        started.resize(1200, 900)
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that no fixture is like."""
    folder = tmp_path_factory.mktemp("page")
    small = tc.quantize(np.linspace(-1, 1, 160, dtype=np.float32).reshape(8, 20), 2)
    tc.save_file({HTML: small, "raw " + HTML: np.ones(3, np.float32)}, folder / "hostile.trit", {HTML: HTML})
    tensors = {f"Layers.{i:03d}.weight": small for i in range(250)}
    tc.save_file({**tensors, "n" * 512: small}, folder / "many.trit")
    data = bytearray((FIXTURES / "valid" / "spec" / "appendix-b.trit").read_bytes())
    data[576] ^= 1  # of the segment of `bias`
    data[959] = 1  # after the last segment
    (folder / "two-faults.trit").write_bytes(data)
    (folder / "empty.trit").touch()
    (folder / "picture.trit").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    return folder


def path_of(case: str) -> Path:
    """The file of a case of the manifest."""
    return FIXTURES / str(CASES[case]["file"])


def shown(browser: Browser) -> dict[str, Any]:
    """What the page shows: the class and text of the verdict, and of each tensor its cells."""
    found: dict[str, Any] = browser.evaluate(
        """({
          verdict: document.querySelector(".verdict").className.replace("verdict ", ""),
          text: document.querySelector(".verdict").innerText,
          defects: [...document.querySelectorAll(".verdict li")].map((item) => item.innerText),
          facts: document.getElementById("about").hidden ? "" : document.getElementById("facts").innerText,
          rows: [...document.querySelectorAll("#directory:not([hidden]) tbody tr")]
            .map((row) => [...row.cells].map((cell) => cell.innerText)),
        })"""
    )
    return found


def drawn(browser: Browser, row: int) -> list[int]:
    """The counts of levels in the histogram of a row, once it is there."""
    bars = f"document.querySelectorAll('#tensors tr')[{row}].querySelectorAll('rect title')"
    browser.wait(f"{bars}.length")
    titles = browser.evaluate(f"[...{bars}].map((title) => title.textContent)")
    found = [re.fullmatch(r"level (-?[0-9]+): ([0-9,]+) \([0-9.]+ %\)", title) for title in titles]
    H = len(found) // 2
    assert [bar and int(bar[1]) for bar in found] == list(range(-H, H + 1))
    return [int(bar[2].replace(",", "")) for bar in found if bar]


def counted(tensor: tc.TritTensor) -> list[int]:
    """How often each level stands in a tensor."""
    H = (3**tensor.depth - 1) // 2
    return [int(np.count_nonzero(tensor.levels() == level)) for level in range(-H, H + 1)]


REAL = [case for case in CASES if case.startswith("real/")]


@pytest.mark.parametrize("case", [*REAL, "spec/appendix-b"])
def test_valid(case: str, browser: Browser) -> None:
    """A valid file is valid, and its tensors and levels are those that the package reads."""
    browser.choose(path_of(case))
    page = shown(browser)
    assert page["verdict"] == "valid"
    assert page["text"] == f"✓ Valid\n{path_of(case).name} keeps every rule of the specification."
    assert CASES[case]["decoded"]["identity"] in page["facts"]
    with tc.open_file(path_of(case)) as file:
        assert len(page["rows"]) == len(file.keys())
        for row, name in enumerate(file.keys()):
            cells, tensor = page["rows"][row], file.get_tensor(name)
            assert cells[0] == name
            assert cells[2] == " × ".join(f"{axis:,}" for axis in tensor.shape)
            if isinstance(tensor, tc.TritTensor):
                assert cells[1] == f"trit, {tensor.dtype}"
                assert [cells[3], cells[4]] == [str(tensor.depth), str(tensor.group_size)]
                bits = [tensor.bits_per_weight, tensor.information_bits_per_weight]
                assert cells[6:8] == [f"{number:.3f}" for number in bits]
                assert drawn(browser, row) == counted(tensor)


def test_dropped(browser: Browser) -> None:
    """A file can be dragged over the page and dropped."""
    browser.drop(path_of(REAL[0]))
    page = shown(browser)
    assert page["text"].startswith(f"✓ Valid\n{path_of(REAL[0]).name} ")
    assert len(page["rows"]) == 1
    assert not browser.evaluate("document.querySelector('.over') !== null")


def one_each(chapter: str) -> list[str]:
    """The first invalid case of each requirement in a chapter of the fixtures."""
    clauses = {CASES[case]["clause"]: case for case in reversed(CASES) if case.startswith(f"{chapter}/")}
    return [case for clause, case in clauses.items() if clause]


CHAPTERS = ("preamble", "packing", "digests", "names", "layout")


@pytest.mark.parametrize("case", [case for chapter in CHAPTERS for case in one_each(chapter)])
def test_invalid(case: str, browser: Browser) -> None:
    """Another file has the manifest's verdict and requirement; what cannot be trusted is not shown."""
    browser.choose(path_of(case))
    page = shown(browser)
    assert page["verdict"] == CASES[case]["verdict"]
    assert page["defects"][0].startswith(f"{CASES[case]['clause']} ")
    findings = tc.verify_file(path_of(case)).findings
    in_data = CASES[case]["clause"] in ("PACK-2", "PACK-3", "SEG-1", "LAY-3")
    assert bool(page["rows"]) == bool(page["facts"]) == in_data
    if in_data:
        assert [defect.split()[0] for defect in page["defects"]] == [finding.clause for finding in findings]


def test_unsupported(browser: Browser, folder: Path) -> None:
    """A file of another major version, or with a flag, is unsupported, not invalid."""
    data = path_of(REAL[0]).read_bytes()
    for at, clause in ((8, "PRE-3"), (12, "PRE-4")):
        (folder / "new.trit").write_bytes(data[:at] + b"\x02" + data[at + 1 :])
        browser.choose(folder / "new.trit")
        page = shown(browser)
        assert page["verdict"] == "unsupported"
        assert page["defects"][0].startswith(f"{clause} ")
        assert not page["rows"]


def test_no_trit_file(browser: Browser, folder: Path) -> None:
    """A picture and an empty file are told as such."""
    for name, defect in (
        ("picture.trit", "PRE-2 this is no .trit file\nbyte 0"),
        ("empty.trit", "PRE-1 the file has 0 bytes, not 64\nbyte 0"),
    ):
        browser.choose(folder / name)
        page = shown(browser)
        assert page["verdict"] == "invalid"
        assert page["defects"] == [defect]
        assert not page["rows"]
        assert not page["facts"]


def test_several_faults(browser: Browser, folder: Path) -> None:
    """All defects of segments and gaps are shown; a damaged tensor's neighbour can still be looked at."""
    browser.choose(folder / "two-faults.trit")
    page = shown(browser)
    assert [defect.split("\n") for defect in page["defects"]] == [
        ["SEG-1 the segment's SHA-256 is not its digest", "tensor bias, byte 576"],
        ["LAY-3 a byte between segments is 1", "byte 959"],
    ]
    assert page["rows"][0][-1] == "damaged"
    assert sum(drawn(browser, 1)) == 40


def test_newer_minor_version(browser: Browser) -> None:
    """The keys that were ignored in a file of a newer minor version are named."""
    case = next(
        case
        for case, found in CASES.items()
        if found["verdict"] == "valid" and "-zz-in-a-header" in case and found["decoded"]["version"][1] > 0
    )
    browser.choose(path_of(case))
    assert "ignored were the keys zz." in shown(browser)["text"]


def test_hostile_names(browser: Browser, folder: Path) -> None:
    """HTML in names and metadata is text."""
    before = browser.evaluate("document.scripts.length")
    browser.choose(folder / "hostile.trit")
    page = shown(browser)
    assert page["verdict"] == "valid"
    assert [row[0] for row in page["rows"]] == [HTML, "raw " + HTML]
    browser.evaluate("document.querySelector('details').open = true")
    assert browser.evaluate("document.getElementById('metadata').innerText") == f"{HTML}\n{HTML}"
    assert browser.evaluate("document.images.length") == 0
    assert browser.evaluate("document.scripts.length") == before
    assert browser.evaluate("'broken' in globalThis") is False


def test_a_second_file_replaces_the_first(browser: Browser, folder: Path) -> None:
    """Also where the first is still being read; nothing of it is left."""
    browser.evaluate("delete document.body.dataset.done")
    browser.give(folder / "many.trit")
    browser.choose(path_of(REAL[0]))
    page = shown(browser)
    assert path_of(REAL[0]).name in page["text"]
    assert len(page["rows"]) == 1
    browser.choose(folder / "picture.trit")
    page = shown(browser)
    assert page["verdict"] == "invalid"
    assert not page["rows"]
    assert not page["facts"]


def test_many_tensors(browser: Browser, folder: Path) -> None:
    """A hundred are shown at a time, all can be filtered, and histograms are drawn where one looks."""
    browser.choose(folder / "many.trit")
    assert len(shown(browser)["rows"]) == 100
    assert sum(drawn(browser, 0)) == 160
    assert browser.evaluate("document.querySelectorAll('#tensors tr')[99].querySelector('svg') === null")
    browser.evaluate("document.querySelectorAll('#tensors tr')[99].scrollIntoView()")
    assert sum(drawn(browser, 99)) == 160
    more = "document.getElementById('more')"
    browser.evaluate(f"{more}.click(), {more}.click()")
    assert len(shown(browser)["rows"]) == 251
    assert browser.evaluate(f"{more}.checkVisibility()") is False
    browser.evaluate("document.getElementById('filter').focus()")
    browser.send("Input.insertText", text="LAYERS.24")
    assert [row[0] for row in shown(browser)["rows"]] == [f"Layers.{i}.weight" for i in range(240, 250)]
    assert browser.evaluate("document.getElementById('count').innerText") == "10 of 251"


@pytest.mark.parametrize("width", [1200, 700, 360])
def test_widths(width: int, browser: Browser, folder: Path) -> None:
    """No window is too narrow for the longest names."""
    browser.resize(width, 900)
    for path in (folder / "many.trit", folder / "hostile.trit", folder / "two-faults.trit"):
        browser.choose(path)
        browser.evaluate("filter = document.getElementById('filter'), filter.value = 'n', filter.oninput()")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    browser.resize(1200, 900)


def test_what_cannot_be_read(browser: Browser, folder: Path) -> None:
    """A folder that is dropped has no verdict."""
    browser.drop(folder)
    page = shown(browser)
    assert page["verdict"] == "unread"
    assert page["text"].startswith("! Not read\n")
    assert not page["rows"]


def test_nothing_else_is_fetched(browser: Browser) -> None:
    """In all of the tests above, only the page and its two scripts were loaded, and nothing went wrong."""
    browser.choose(path_of(REAL[0]))
    requests = {
        event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    }
    own = {(PAGE.parent / name).as_uri() for name in ("index.html", "sha256.js", "trit.js")}
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == own
    errors = [
        event
        for event in browser.events
        if event["method"] == "Runtime.exceptionThrown"
        or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error")
    ]
    assert errors == []
