"""Tests of the HTML page: what it holds, and that it works in a browser without a network."""

import html as entities
import json
import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_report import ENVIRONMENT, declare, edit, write_results

from deeplab_bench.data.pixels import VOID
from deeplab_bench.report import speed_tables, tables
from deeplab_bench.report.findings import list_findings
from deeplab_bench.report.loading import load_results
from deeplab_bench.report.phrases import describe_environments
from deeplab_bench.report.results import Results
from deeplab_bench.report.web import charts, page, pictures, provenance, tradeoff, training
from deeplab_bench.results.files import RunFiles
from deeplab_bench.settings.inference import PLAIN

BROWSERS = ("chromium", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
TABLE = """| Name | Score (%) | Rank |
|:--|--:|--:|
| a | 5.00 ± 1 | 3 (2 to 3) |
| b | 40.00 ± 1 | 1 |
| d | | |
| c | 7.00 ± 1 | 2 (2 to 3) |

Scores in percent.
"""
# Leaves on the page, as JSON, what is seen after clicks, the move of a slider, and before printing.
ACTIONS = """<script>
const seen = {};
const table = document.querySelector("#section-models-of-others table");
const heads = [...table.querySelectorAll("th")];
const order = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join("");
for (const [column, name] of ["name", "score", "rank"].entries()) {
  seen[name] = [1, 2].map(() => {
    heads[column].querySelector("button").click();
    return [order(), ...heads.map((head) => head.getAttribute("aria-sort"))];
  });
}
const slider = document.querySelector("#section-fully-connected-crf .slider");
const shown = () => [...slider.querySelectorAll("[data-name]")]
  .filter((choice) => !choice.hidden).map((choice) => choice.dataset.name);
seen.start = shown();
const input = slider.querySelector("input");
input.value = 1;
input.dispatchEvent(new Event("input"));
seen.moved = shown();
seen.charts = document.querySelectorAll(".plotly-graph-div .main-svg").length;
const closed = () => document.querySelectorAll("details:not([open])").length;
const widths = () => [...document.querySelectorAll(".plotly-graph-div > .plot-container .main-svg")]
  .map((chart) => chart.clientWidth);
seen.folded = closed();
dispatchEvent(new Event("beforeprint"));
seen.printed = [closed(), Math.min(...widths()), Math.max(...widths())];
dispatchEvent(new Event("afterprint"));
seen.after = closed();
location.hash = "#miou";
setTimeout(() => {
  seen.term = document.querySelector("#miou").closest("details").open;
  document.body.dataset.seen = JSON.stringify(seen);
}, 500);
</script></body>"""
GLOSSARY = "# Glossary\n\nAll terms.\n\n## Scores\n\n### mIoU\n\nThe mean.\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("web"))
        params = declare(crf=["aspp"], audit=["aspp"])
        write_results(params)
        Path("docs").mkdir()
        Path("docs/glossary.md").write_text(GLOSSARY, encoding="utf-8")
        sources = {"commit": "0123456789abcdef", "date": "2017-06-17", "dirty": True}
        edit(
            RunFiles("quick", "aspp", 0).evaluation_timing(PLAIN),
            sources={"train": sources | {"lock_sha256": None}},
        )
        yield load_results(params, "quick")


@pytest.fixture(scope="module")
def html(results: Results) -> str:
    return render(results)


def render(results: Results) -> str:
    texts = tables.render(results) | speed_tables.render(results)
    texts |= {"tables/label_files.md": TABLE, "tables/inference.md": TABLE}
    return page.render(results, texts, {"plots/atrous.png": b"png"}, list_findings(results))


@pytest.fixture(scope="module")
def seen(html: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Open the page from the disk and return what ``ACTIONS`` saw; no console error is allowed."""
    if BROWSER is None:
        pytest.skip("there is no Chromium")
    folder = tmp_path_factory.mktemp("browser")
    path = folder / "report.html"
    path.write_text(html.replace("</body>", ACTIONS), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'user'}"]
    done = subprocess.run(
        [BROWSER, *options, "--enable-logging=stderr", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<body[^>]* data-seen="([^"]*)"', done.stdout)
    assert found is not None
    return json.loads(entities.unescape(found.group(1)))


class Links(HTMLParser):
    """Collects what a browser would fetch, and the links and anchors of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors += filter(None, [given.get("id")])
        if tag == "a":
            self.links.append(given["href"])
        elif address := given.get("src") or given.get("href"):
            self.fetched.append(address)


def find_section(html: str, anchor: str) -> str:
    found = re.search(f'<section id="section-{anchor}">(.*?)</section>', html, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_nothing_is_fetched_and_links_lead_somewhere(html: str) -> None:
    found = Links(html)
    assert len(found.fetched) > 5
    assert all(address.startswith("data:") for address in found.fetched)
    sections = [link for link in found.links if link.startswith("#section-")]
    assert len(sections) > 12 and {link[1:] for link in sections} <= set(found.anchors)
    assert "miou" in found.anchors and "#miou" in found.links
    assert len(found.anchors) == len(set(found.anchors))


def test_every_finding_stands_above_what_shows_it(html: str, results: Results) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings[:2] == ["Accuracy", "Classes"]
    assert {"Fully connected CRF", "Rules of scoring", "Samples", "Training"} <= set(headings)
    for finding in list_findings(results).values():
        assert str(page.convert(finding)).strip() in html


def test_equal_results_give_equal_bytes(html: str, results: Results) -> None:
    assert render(results) == html


def test_one_model_and_seed_without_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = declare(models=["aspp"], seeds=[0], hardware=[])
    write_results(params)
    results = load_results(params, "quick")
    lone = render(results)
    headings = set(re.findall(r"<h2>(.*?)</h2>", lone))
    assert {"Accuracy", "Training", "Provenance"} < headings
    assert not headings & {"Differences", "Accuracy and cost", "Fully connected CRF"}
    assert "NaN" not in charts.draw_object_size(results)  # one seed has no interval


def test_what_the_page_in_markdown_has_is_here_too(html: str) -> None:
    for anchor, chart in (("object-size", "object_size"), ("boundaries", "boundaries")):
        section = find_section(html, anchor)
        assert f'id="chart-{chart}"' in section and "<table>" in section
    assert 'id="chart-flops-cpu"' in html and "chart-memory" not in html
    assert "<table>" in find_section(html, "ways-of-inference")
    assert "<summary>Speed of training</summary>" in find_section(html, "training")
    assert "data:image/png" in find_section(html, "atrous-convolution")


def test_every_model_has_a_panel_of_its_training(results: Results) -> None:
    chart = str(training.draw_validation(results))
    assert chart.count("mIoU at the end") == len(results.models)
    assert "validation 72.0 %" in chart and "validation 60.0 %" in chart
    assert [36.0, 72.0] in decode_all(chart)
    drawn = decode_all(str(training.draw_losses(results)))
    # the means of the seeds' losses: 2, then that of 1, 1.1 and 1.2; dashed, those of validation
    assert sum(values == pytest.approx([2.0, 1.1]) for values in drawn) == len(results.models)
    assert sum(values == pytest.approx([1.5, 1.35]) for values in drawn) == len(results.models)


def test_without_validation_curves_the_loss_alone_is_drawn(html: str, results: Results) -> None:
    assert 'id="chart-validation"' in find_section(html, "training")
    section = find_section(render(replace(results, curves=[])), "training")
    assert 'id="chart-curves"' in section and "mIoU at the end" in section
    assert 'id="chart-validation"' not in section and "validated" not in section


def decode_all(chart: str) -> list[list[float]]:
    """Decode the vertical positions of all curves of a chart."""
    return [decode(encoded) for encoded in re.findall(r'"y":\{[^}]*"bdata":"([^"]*)"', chart)]


def decode(encoded: str) -> list[float]:
    """Decode numbers as plotly writes them."""
    numbers = b64decode(encoded.encode().decode("unicode_escape"))
    return np.frombuffer(numbers, dtype=float).tolist()


def test_the_glossary_is_there_once_and_folded(html: str) -> None:
    assert len(re.findall(r"<h[1-4][^>]*>Glossary</h", html)) == 1
    assert re.search(r"<details>.*<h4 id=\"miou\">", find_section(html, "glossary"), re.DOTALL)


def test_the_score_follows_the_name_of_the_model(html: str) -> None:
    heads = re.findall(r"<th[^>]*>(.*?)</th>", find_section(html, "accuracy"))
    assert heads[:4] == ["Model", "mIoU (%)", "95 % interval", "Rank"]
    assert {"Architecture", "Seeds", "Large (%)"} < set(heads)


def test_provenance_has_commits_machines_and_digests(html: str, results: Results) -> None:
    section = find_section(html, "provenance")
    for cell in ("0123456789ab", "2017-06-17", "yes", "unknown"):
        assert f">{cell}</td>" in section
    assert "A &amp; B CPU, threads 2, python 3.11.9, torch 2.6.0" in section
    run = results.runs[0].provenance
    for digest in (run.settings_sha256, run.code_sha256["train"], run.code_sha256["evaluate"]):
        assert digest[:12] in section
    assert "deeplab-bench trace results/quick/tables/accuracy.csv aspp miou_mean" in section


def test_packages_stand_in_provenance_alone(html: str) -> None:
    assert "torch 2.6.0" not in find_section(html, "accuracy")
    assert "Trained on A &amp; B CPU." in find_section(html, "accuracy")
    assert "torch 2.6.0" not in find_section(html, "accuracy-and-cost")


def test_machines_are_shortened_to_their_kind(results: Results) -> None:
    full = describe_environments([dict[str, Any](ENVIRONMENT)])
    assert provenance.shorten_machines(f"On {full}; cpu: {full}.", results) == (
        "On A & B CPU; cpu: A & B CPU."
    )


ROW = {"model": "aspp", "ci95_low": -0.5, "ci95_high": 2.5}


@pytest.mark.parametrize(
    ("row", "title"),
    [
        (
            {"other": "image_pyramid", "published_difference": 3.25, "difference": 1.0},
            "Difference of mIoU (points)",
        ),
        ({"published": 3.25, "miou_mean": 1.0}, "mIoU (%)"),
    ],
)
def test_published_and_own_values_are_in_one_row(
    row: dict[str, Any], title: str, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check the two ends of the line between both, and the interval of ours."""
    table = SimpleNamespace(data=pd.DataFrame([ROW | row]))
    monkeypatch.setattr(charts, "build_paper", lambda results: table)
    chart = str(charts.draw_paper(results)).replace(" ", "")
    assert '"x":[3.25,1.0,null],"y":[0,0,null]' in chart
    assert '"array":[1.5],"arrayminus":[1.5]' in chart
    assert title.replace(" ", "") in chart
    assert ("over" in chart.partition("ticktext")[2]) == ("other" in row)


def test_a_change_that_is_printed_as_zero_has_no_sign() -> None:
    assert [charts.format_change(x) for x in (-0.04, 0.04, -0.06, 3.0)] == [
        "0.0",
        "0.0",
        "-0.1",
        "+3.0",
    ]


def test_names_do_not_cover_their_neighbours() -> None:
    cost = np.array([1.0, 1.1, 5.0])
    summary = pd.DataFrame({"mean": [70.0, 70.0, 50.0]})
    summary = summary.assign(ci95_low=summary["mean"] - 2, ci95_high=summary["mean"] + 2)
    sides = tradeoff.place_names(["first", "second", "third"], cost, cost, summary)
    assert sides[0] == "middle left"
    assert sides[1:] == ["middle right", "middle right"]


def test_names_are_no_html() -> None:
    assert "<b>" not in page.convert("| a |\n|:--|\n| `<b>x</b>` <b>y</b> |")


def test_what_the_crf_mends_and_spoils() -> None:
    truth = np.array([[0, 1, 1, 2, VOID]], dtype=np.uint8)
    before = np.array([[0, 1, 2, 2, 0]], dtype=np.uint8)
    after = np.array([[0, 2, 1, 1, 1]], dtype=np.uint8)
    mended, spoilt = pictures.find_changes(truth, before, after)
    assert mended.tolist() == [[False, False, True, False, False]]
    assert spoilt.tolist() == [[False, True, False, True, False]]
    image = Image.fromarray(np.zeros((1, 5, 3), dtype=np.uint8))
    coloured = np.asarray(pictures.colour_changes(image, mended, spoilt))[0].tolist()
    grey, green, orange = [128] * 3, list(pictures.MENDED), list(pictures.SPOILT)
    assert coloured == [grey, orange, green, orange, grey]


def test_images_and_colours_are_shown_once_above_the_sliders(html: str) -> None:
    section = find_section(html, "fully-connected-crf")
    assert section.count(">image</figcaption>") == 1
    assert "0.00 % mended, 0.00 % spoilt" in section
    samples = find_section(html, "samples")
    for name in ("background", "disc_shape", "ring", "void, not scored"):
        assert f"</span>{name}</li>" in samples
    before, _, after = samples.partition('class="slider"')
    assert "ground truth" in before and "ground truth" not in after


def test_scores_sort_from_the_highest_and_ranks_from_the_first(seen: dict[str, Any]) -> None:
    up, down = "ascending", "descending"
    assert seen["name"] == [["abcd", up, None, None], ["dcba", down, None, None]]
    assert seen["score"] == [["bcad", None, down, None], ["acbd", None, up, None]]
    assert seen["rank"] == [["bcad", None, None, up], ["acbd", None, None, down]]


def test_a_slider_starts_at_the_last_iteration_and_moves(seen: dict[str, Any]) -> None:
    assert (seen["start"], seen["moved"]) == (["iteration 10"], ["iteration 1"])
    assert seen["charts"] > 10


def test_all_is_open_and_drawn_when_printed(seen: dict[str, Any]) -> None:
    assert seen["folded"] > 5 and seen["after"] == seen["folded"]
    closed, *widths = seen["printed"]
    assert closed == 0 and widths == [690, 690]


def test_a_link_to_a_term_opens_the_glossary(seen: dict[str, Any]) -> None:
    assert seen["term"] is True
