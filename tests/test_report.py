"""The page that `inspect --html` writes: what it says, that it is one file, and how it looks in a browser."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from model_helpers import MINILM, Stored, convert, floats, weights, write_model

from tritcodec import open_model
from tritcodec.cli import main
from tritcodec.model.folder import new_file
from tritcodec.model.measure import Sums, look
from tritcodec.model.policy import Policy
from tritcodec.model.repack import Repack, repack_job
from tritcodec.model.report import report, size
from tritcodec.model.run import quantize_model
from tritcodec.model.source import ModelSource, read_tensor
from tritcodec.model.workers import Inline

HOSTILE = "<img src=x onerror=\"alert(1)\"></title></style><script>alert('2')</script>&amp;"
KEPT: dict[str, Stored] = {
    "lm_head.weight": weights(5, 20),
    "count": Stored("I64", (1,), bytes(8)),
    f"{HOSTILE}.bias": weights(3),
    "model.layers.3.mlp.up_proj.weight": weights(5, 20),
}
ALLOWED = {
    *("html", "head", "meta", "title", "link", "style", "body", "main", "section", "h1", "h2", "h3", "p"),
    *("dl", "div", "dt", "dd", "b", "br", "wbr", "bdi", "code", "span", "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "circle", "path"),
}


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        """Parse *page*."""
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Keep a tag."""
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        """Keep some text."""
        self.text.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of hostile names in two depths, and what it was made from."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(2)
    tensors = {
        f"model.layers.{i}.mlp.gate_proj.weight": floats(rng.standard_normal((40, 32))) for i in range(5)
    }
    tensors[f"{HOSTILE}.layers.0.weight"] = floats(rng.standard_normal((7, 20)), "BF16")
    source = write_model(folder / "source", tensors | KEPT, {HOSTILE: HOSTILE})
    policy = Policy(keep=["*up_proj*"], depths=[("*<img*", 4), ("*layers.2.*", 1)])
    return convert(source, folder / "out", ["uniform-d2"], policy) / "uniform-d2"


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    """The report on it, with errors."""
    with open_model(made) as model:
        return report(model, look(model, ModelSource(made.parents[1] / "source"), counts=True))


def test_whatever_a_file_holds_is_text(page: str) -> None:
    """No name and no metadata makes a tag or an attribute, and all are there to be read."""
    parsed = Parsed(page)
    assert {tag for tag, _ in parsed.tags} <= ALLOWED
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    text = "".join(parsed.text)
    for name in KEPT:
        assert name in text
    assert text.count(HOSTILE) >= 4  # key and value of the metadata, a layer, a bias
    assert "alert('2')</script>" not in page


def test_raw_tensors_that_differ_are_counted(made: Path, page: str, tmp_path: Path) -> None:
    """Those that the source has otherwise, or not at all: how many, and the first."""
    label = "Raw, not as in the source"
    assert label not in page
    tensors = {t.name: t for t in ModelSource(made.parents[1] / "source").tensors if t.name not in KEPT}
    others = {name: Stored(t.dtype, t.shape, read_tensor(t).tobytes()) for name, t in tensors.items()}
    with open_model(made) as model:
        found = look(model, ModelSource(write_model(tmp_path / "other", others)), counts=True)
        text = "".join(Parsed(report(model, found)).text)
    assert f"{label}{len(KEPT)} tensors{min(KEPT)}" in text


def test_nothing_is_fetched(page: str) -> None:
    """No address, no script, and a policy that lets nothing in."""
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", page) == ["data:,"]
    assert not re.search(r"https?:|@import|url\(|<script", page)
    policy = next(attributes["content"] for _, attributes in Parsed(page).tags if "http-equiv" in attributes)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_figures_are_those_of_the_model(made: Path, page: str) -> None:
    """Bits, errors, and the worst group, over all and of every matrix; each depth has its histograms."""
    with open_model(made) as model:
        found = look(model, ModelSource(made.parents[1] / "source"), counts=True)
        assert model.identity in page
    sums = Sums.of(found)
    assert sums.error is not None
    assert f"<b>{sums.stored_bits:.3f}</b> stored" in page
    assert f"<b>{sums.error.sqnr:.2f} dB</b>" in page
    for each in found:
        if each.distortion and each.distortion.worst:
            assert f"{100 * each.distortion.relative_error:.2f} %" in page
            assert f">{each.distortion.worst.row}:{each.distortion.worst.group}, " in page
    assert sorted(set(re.findall(r"<h3>(\w+), (\d) trits? a weight</h3>", page))) == [
        (what, depth) for what in ("Codes", "Levels") for depth in "124"
    ]
    counted = sum(int(count.replace(",", "")) for count in re.findall(r"<title>-?\d+: ([\d,]+) \(", page))
    assert counted == sums.weights + sum(form.rows * form.groups for form in sums.forms)


def test_what_was_kept_has_its_reason(page: str) -> None:
    """By the recipe, and where that would not have kept it, that somebody asked."""
    rows = re.findall(
        r"<tr><td>([^<]*)</td><td><details><summary>1 tensor</summary><bdi>(.*?)</bdi>",
        page.replace("<wbr>", ""),
    )
    reasons = dict(rows)
    assert reasons["output head"] == "lm_head.weight"
    assert reasons["integer I64"] == "count"
    assert reasons["asked for: the recipe would quantise it"] == "model.layers.3.mlp.up_proj.weight"
    assert reasons["rank 1"].endswith(".bias")


def test_what_repack_kept_did_not_fit(tmp_path: Path) -> None:
    """The recipe decided nothing there: embeddings and layers were looked at."""
    names = ["embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"]
    write_model(tmp_path / "model", {name: weights(5, 20) for name in names})
    quantize_model(repack_job(ModelSource(tmp_path / "model"), Repack()), tmp_path / "out", Inline())
    with open_model(tmp_path / "out" / "repacked") as model:
        page = report(model, look(model, counts=True))
    assert "<td>not of trits and scales, or no smaller</td><td><details><summary>2 tensors</summary>" in page
    assert "asked for" not in page


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1000 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (999 << 10, "999 KiB"),
        (1023 << 20, "1023 MiB"),
        (3 << 30, "3 GiB"),
        (1 << 52, "4096 TiB"),
    ],
)
def test_sizes_have_no_exponents(count: int, text: str) -> None:
    """Three digits or four."""
    assert size(count) == text


@pytest.mark.parametrize("tensors", [{}, {"bias": weights(3)}, {"w": weights(5, 20)}])
def test_a_model_may_lack_anything(tmp_path: Path, tensors: dict[str, Stored]) -> None:
    """No tensors, no matrices, no layers, no source to compare with, no weight that is not zero."""
    zeros = {name: floats(np.zeros(stored.shape)) for name, stored in tensors.items()}
    for kind, some in {"painted": tensors, "zeros": zeros}.items():
        out = convert(write_model(tmp_path / kind, some), tmp_path / f"{kind}-out", ["uniform-d1"])
        with open_model(out / "uniform-d1") as model:
            found = report(model, look(model, counts=True))
            against = report(model, look(model, ModelSource(tmp_path / "painted"), counts=True))
        assert "nan" not in found + against
        assert "Error" not in found


def test_the_command_writes_it(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over an earlier report, and never over something that is called otherwise; else as without --html."""
    target = tmp_path / "report.html"
    target.write_text("earlier")
    assert main(["inspect", str(made), "--html", str(target)]) == 0
    printed = capsys.readouterr().out
    assert Parsed(target.read_text("utf-8")).tags[0][0] == "html"
    assert main(["inspect", str(made)]) == 0
    assert capsys.readouterr().out == printed
    with pytest.raises(SystemExit) as refused:
        main(["inspect", str(made), "--html", str(made / "model.trit")])
    assert refused.value.code == 2
    assert main(["inspect", str(made), "--html", str(tmp_path / "no" / "report.html")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("report.html: No such file or directory")
    (tmp_path / "folder.html").mkdir()
    assert main(["inspect", str(made), "--html", str(tmp_path / "folder.html")]) == 2
    assert capsys.readouterr().err == f"tritcodec: {tmp_path / 'folder.html'}: Is a directory\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.html", "report.html"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names in Unicode")
def test_a_path_need_not_be_text(made: Path, tmp_path: Path) -> None:
    """A folder whose name is no UTF-8 has a page like any other."""
    odd = tmp_path / os.fsdecode(b"\xff<b>")
    shutil.copytree(made, odd)
    assert main(["inspect", str(odd), "--html", str(odd / "report.html")]) == 0
    assert "<bdi>" + str(tmp_path) in (odd / "report.html").read_text("utf-8").replace("<wbr>", "")


def half_a_page() -> Iterator[str]:
    """The disk is full behind it."""
    yield "half"
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_page_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """What fails while it is written leaves the earlier one, and nothing beside it."""
    target = tmp_path / "report.html"
    target.write_text("earlier")
    with pytest.raises(OSError, match="No space") as failed, new_file(target) as file:
        file.writelines(half_a_page())
    assert failed.value.filename == str(target)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"report.html": "earlier"}


@pytest.mark.xdist_group("ports")  # one browser
def test_it_fits_the_window(page: str, tmp_path: Path) -> None:
    """In Chromium, at the width of a desk and of a telephone: nothing to the side, no error, no request."""
    if CHROMIUM is None:
        pytest.skip("chromium is MISSING, so that the page is NOT TESTED")
    target = tmp_path / "report.html"
    target.write_text(page, encoding="utf-8")
    with Browser(target, "true") as browser:
        for width in (1200, 400):
            browser.resize(width, 900)
            browser.evaluate("document.querySelectorAll('details').forEach((item) => item.open = true)")
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate("document.querySelector('svg.small').getBoundingClientRect().width") > 60
        shown = browser.evaluate("document.body.innerText")
        assert HOSTILE in shown
        reported = [event["method"] for event in browser.events]
        assert "Runtime.exceptionThrown" not in reported
        assert "Log.entryAdded" not in reported
        asked = [
            e["params"]["request"]["url"] for e in browser.events if e["method"].endswith("requestWillBeSent")
        ]
        assert {url for url in asked if not url.startswith("data:")} == {target.as_uri()}


def test_minilm_has_a_page_too(tmp_path: Path) -> None:
    """A real model: one layer, opened, with all its matrices."""
    out = convert(MINILM, tmp_path / "out", ["uniform-d1"]) / "uniform-d1"
    with open_model(out) as model:
        found = report(model, look(model, counts=True))
    assert found.count('<details class="rows" open>') == 1
    assert found.count('<svg role="img" class="small"') == 12
