"""Tests of the HTML page: what it holds, and that it works in a browser without a network."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from test_report import declare, write_results

from deeplab_bench.data.pixels import VOID
from deeplab_bench.report.findings import list_findings
from deeplab_bench.report.loading import load_results
from deeplab_bench.report.results import Results
from deeplab_bench.report.web import page
from deeplab_bench.report.web.pictures import MENDED, SPOILT, compare

BROWSERS = ("chromium", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
TABLE = """| Model | mIoU |
|:--|--:|
| a | 5.00 ± 1 |
| b | 40.00 ± 1 |
| c | 7.00 ± 1 |

mIoU in percent.
"""
# Clicks on a column's head twice and moves a slider, and leaves on the page what is seen then.
ACTIONS = """<script>
const table = document.querySelector("table");
const head = table.querySelectorAll("th")[1];
const seen = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join("");
head.click();
const falling = seen();
head.click();
const slider = document.querySelector(".slider");
const input = slider.querySelector("input");
input.value = 1;
input.dispatchEvent(new Event("input"));
const shown = [...slider.querySelectorAll("[data-name]")].filter((c) => !c.hidden);
document.body.dataset.seen = [falling, seen(), shown.map((c) => c.dataset.name).join()].join(" ");
document.body.dataset.charts = document.querySelectorAll(".plotly-graph-div .main-svg").length > 5;
</script></body>"""


@pytest.fixture
def html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    params = declare(crf=["aspp"], audit=["aspp"])
    write_results(params)
    return render(load_results(params, "quick"))


def render(results: Results) -> str:
    return page.render(results, {"tables/accuracy.md": TABLE}, {}, list_findings(results))


class Links(HTMLParser):
    """Collects what a browser would fetch, and the links and anchors of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors.add(given.get("id", ""))
        if tag == "a":
            self.links.append(given["href"])
        elif address := given.get("src") or given.get("href"):
            self.fetched.append(address)


def test_nothing_is_fetched_and_links_lead_somewhere(html: str) -> None:
    found = Links(html)
    assert len(found.fetched) > 5
    assert all(address.startswith("data:") for address in found.fetched)
    inside = [link.removeprefix("#") for link in found.links if link.startswith("#")]
    assert len(inside) > 5 and set(inside) <= found.anchors


def test_every_finding_stands_above_what_shows_it(html: str) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings[:3] == ["Accuracy", "Classes", "Differences"]
    assert {"Fully connected CRF", "Rules of scoring", "Samples", "Training"} <= set(headings)
    for finding in list_findings(
        load_results(declare(crf=["aspp"], audit=["aspp"]), "quick")
    ).values():
        assert str(page.convert(finding)).strip() in html


def test_equal_results_give_equal_bytes(html: str) -> None:
    results = load_results(declare(crf=["aspp"], audit=["aspp"]), "quick")
    assert render(results) == html


def test_names_are_no_html() -> None:
    assert "<b>" not in page.convert("| a |\n|:--|\n| `<b>x</b>` <b>y</b> |")


def test_what_the_crf_mends_and_spoils() -> None:
    truth = np.array([[0, 1, 1, 2, VOID]], dtype=np.uint8)
    before = np.array([[0, 1, 2, 2, 0]], dtype=np.uint8)
    after = np.array([[0, 2, 1, 1, 1]], dtype=np.uint8)
    changes = compare(truth, before, after)[0].tolist()
    assert changes[1:4] == [list(SPOILT), list(MENDED), list(SPOILT)]
    assert changes[0] == changes[4] == [210] * 3


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_it_works_in_a_browser_without_a_network(html: str, tmp_path: Path) -> None:
    """Check sorting, a slider and the charts, and that the console shows no error."""
    path = tmp_path / "report.html"
    path.write_text(html.replace("</body>", ACTIONS), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'user'}"]
    done = subprocess.run(
        [str(BROWSER), *options, "--enable-logging=stderr", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    body = re.search(r"<body[^>]*>", done.stdout)
    assert body is not None
    assert 'data-charts="true"' in body.group()
    assert 'data-seen="bca acb iteration 1"' in body.group()
