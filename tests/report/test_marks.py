"""Tests that results of older code are marked in tables, figures, the page and the README."""

import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from test_readme import is_readme_current
from test_report import declare, edit, report, texts, write_results

from deeplab_bench.report import figures, page, plots, receptive_field, samples, tradeoff
from deeplab_bench.report import results as results_module
from deeplab_bench.report.figures import find_labels, redden
from deeplab_bench.report.loading import load_results
from deeplab_bench.report.marks import RED, find_marks, mark_models
from deeplab_bench.report.results import Results
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.settings.loading import load_params

COMMITTED = Path(__file__).parents[2] / "params.yaml"
OLD = {"aspp": ("train", "evaluate")}
ALERT = (
    "> [!CAUTION]\n> ‡ Results of older code: aspp (train, evaluate). "
    "Run `make repro PROFILE=quick` to make them again.\n"
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _outdated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Results, "outdated", OLD)


def test_marks_of_one_model_and_their_reasons() -> None:
    marks = mark_models(
        "quick",
        {
            "implausible": {"a": "seed 0: why"},
            "unfinished": {"d": "no"},
            "trained_on_val": {"c": "yes"},
            "outdated": {"a": "train", "b": "train", "c": "crf"},
        },
    )
    names = ("a", "b, os8", "c", "d", "e")
    assert [marks.add_to(name) for name in names] == ["a †‡", "b, os8 ‡", "c ¶‡", "d §", "e"]
    assert marks.describe() == (
        "† implausible · § unfinished · ¶ trained on val · ‡ results of older code"
    )
    assert marks.list_reasons() == [
        "† Implausible: a (seed 0: why). The means include these runs.",
        "§ Unfinished: d (no). Longer training may change their order.",
        "¶ Trained on val: c (yes). The scores say nothing about new images.",
        "‡ Results of older code: a, b (train); c (crf).",
    ]
    assert marks.format_alert().count("\n>\n") == 3
    assert marks.format_alert().endswith(" Run `make repro PROFILE=quick` to make them again.")
    assert marks.select(["b, os8"]).list_reasons() == ["‡ Results of older code: b (train)."]


def test_every_table_and_figure_marks_what_was_trained_on_val() -> None:
    params = declare(crf=["aspp"], audit=["aspp"])
    write_results(params)
    for seed in params.run.seeds:
        edit(RunFiles("quick", "aspp", seed).evaluation("plain"), trained_on_val=True)
    for name, text in texts(params).items():
        if name.endswith(".md"):
            assert text.startswith("> [!CAUTION]\n> ¶ Trained on val: aspp (")
            assert re.search(r"\| aspp ¶ +\|", text)
            assert "image_pyramid ¶" not in text
    results = load_results(params, "quick")
    accuracy = pd.read_csv(StringIO(texts(params)["tables/accuracy.csv"]), index_col="model")
    assert list(accuracy.index[accuracy["trained_on_val"].notna()]) == ["aspp"]
    for figure in draw_all(results):
        redden(find_labels(figure))
        colours = {text.get_text(): text.get_color() for text in find_labels(figure)}
        assert to_hex(colours["aspp ¶"]).upper() == RED


def test_rates_beyond_the_crops_are_marked() -> None:
    params = declare()
    write_results(params)
    assert not load_results(params, "quick").beyond_crops
    for model in params.run.models:
        edit(ProfileFiles("quick").speed("cpu", model), input_size=[129, 129])
    reasons = load_results(params, "quick").beyond_crops
    assert list(reasons) == ["aspp", "image_pyramid"]
    assert re.fullmatch(
        r"\d\d % of the atrous weights met little but padding in training: "
        r"rate 4, maps of 3x3 in crops and 9x9 in images",
        reasons["aspp"],
    )


def test_nothing_is_said_without_a_mark() -> None:
    marks = mark_models("quick", {"outdated": {}})
    assert not marks
    assert marks.add_to("a") == "a"
    assert marks.describe() == marks.format_alert() == ""
    assert marks.list_reasons() == []


@pytest.mark.usefixtures("_outdated")
def test_tables_say_so() -> None:
    params = declare(crf=["aspp"], audit=["image_pyramid"])
    write_results(params)
    files = texts(params)
    for name in ("accuracy", "per_class", "object_size", "boundaries", "speed", "crf"):
        text = files[f"tables/{name}.md"]
        assert text.startswith(f"{ALERT}\n|")
        assert re.search(r"\| aspp ‡ +\|", text)
        assert "image_pyramid ‡" not in text
        assert "‡ Results of older code: aspp (train, evaluate)." in text.rpartition("|")[2]
        latex = files[f"tables/{name}.tex"]
        assert "aspp ‡ &" in latex
        assert "‡ Results of older code: aspp (train, evaluate)." in latex
        assert "‡" not in files[f"tables/{name}.csv"]
    rows = files["tables/accuracy.csv"].splitlines()
    marks = "implausible,bad_start,unfinished,beyond_crops,trained_on_val,outdated"
    assert rows[0].endswith(f",{marks}")
    assert [row.endswith(',"train, evaluate"') for row in rows[1:]] == [True, False]
    assert "‡" not in files["tables/protocol_audit.md"]  # aspp is not in it


def test_no_table_says_so_without_a_reason() -> None:
    write_results(declare())
    assert not any("‡" in text or "CAUTION" in text for text in texts(declare()).values())


@pytest.mark.usefixtures("_outdated", "_without_figures")
def test_page_and_readme_say_so() -> None:
    report(declare())
    text = Path("results/quick/README.md").read_text(encoding="utf-8")
    assert text.index(ALERT) < text.index("## Accuracy")
    assert text.count(ALERT) == 1 and text.count("\n| Model ") == 1
    assert "Results of older code: aspp" in text.rpartition("\n| Model ")[2]
    assert "`aspp` ‡ has the highest mIoU, 72.0 %" in text
    readme = Path("README.md")
    readme.write_text(f"{page.BEGIN}\n{page.END}\n", encoding="utf-8")
    page.update_readme(readme, Path("results"))
    assert f"{ALERT}\n| Model " in readme.read_text(encoding="utf-8")


@pytest.mark.usefixtures("_without_figures")
def test_the_readme_says_what_the_stored_table_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the code after the report, for a profile that is not in the run."""
    report(declare())
    readme = Path("README.md")
    readme.write_text(f"{page.BEGIN}\n{page.END}\n", encoding="utf-8")
    page.update_readme(readme, Path("results"))
    assert "CAUTION" not in readme.read_text(encoding="utf-8")
    monkeypatch.setattr(
        results_module,
        "compute_code_sha256",
        lambda stage, module: (
            "new" if module.endswith(".aspp") else compute_code_sha256(stage, module)
        ),
    )
    assert not is_readme_current(readme, Path("results"))
    page.update_readme(readme, Path("results"))
    assert f"{ALERT}\n| Model " in readme.read_text(encoding="utf-8")


@pytest.mark.usefixtures("_without_figures")
def test_page_says_nothing_without_a_reason() -> None:
    report(declare())
    text = Path("results/quick/README.md").read_text(encoding="utf-8")
    assert "‡" not in text and "CAUTION" not in text


def draw_all(results: Results) -> Iterator[Figure]:
    yield plots.draw_miou(results)
    yield plots.draw_per_class(results)
    yield plots.draw_object_size(results)
    yield plots.draw_comparisons(results)
    yield plots.draw_training_curves(results)
    yield plots.draw_boundaries(results)
    yield from (tradeoff.draw_tradeoff(results, each) for each in tradeoff.list_expenses(results))
    yield receptive_field.draw_receptive_field(results)
    yield samples.draw_panel(results)


@pytest.mark.usefixtures("_outdated")
def test_figures_say_so_in_red() -> None:
    write_results(declare())
    for figure in draw_all(load_results(declare(), "quick")):
        redden(find_labels(figure))
        colours = {text.get_text(): text.get_color() for text in find_labels(figure)}
        (marked,) = [to_hex(c).upper() for t, c in colours.items() if t.startswith("aspp")]
        assert marked == RED and "aspp ‡" in colours
        (other,) = [to_hex(c) for t, c in colours.items() if t.startswith("image_pyramid")]
        assert other == "#000000"


@pytest.mark.usefixtures("_outdated")
def test_the_panel_of_a_crf_says_so_in_its_title() -> None:
    write_results(declare(crf=["aspp", "image_pyramid"]))
    results = load_results(declare(crf=["aspp", "image_pyramid"]), "quick")
    titles = [samples.draw_crf_panel(results, model).get_suptitle() for model in results.models]
    assert ["‡" in title for title in titles] == [True, False]


def test_figures_say_nothing_without_a_reason() -> None:
    write_results(declare())
    results = load_results(declare(), "quick")
    assert not find_marks(results)
    files = figures.render_figure("miou", lambda: plots.draw_miou(results))
    assert "results of older code" not in files["plots/miou.svg"].decode()
    for figure in draw_all(results):
        assert not any("‡" in text.get_text() for text in find_labels(figure))


def test_models_of_the_committed_settings_look_different() -> None:
    params = load_params(COMMITTED)
    results = Results(params, "quick", [], [])
    looks = [figures.choose_look(results, model) for model in params.networks]
    assert len(set(looks)) == len(looks)
    assert len({look[:2] for look in looks[:40]}) == 40  # a scatter plot has no lines
