"""Tests of published numbers: the committed file and the citations of its rows."""

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from deeplab_bench.report.paper import Cited, collect_settings, find_cited, find_differences
from deeplab_bench.results.provenance import compute_settings_sha256
from deeplab_bench.settings import published
from deeplab_bench.settings.blocks import ParamsError
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.published import (
    Citation,
    PublishedError,
    find_published,
    read_published,
)

COMMITTED = Path(__file__).parents[2] / "params.yaml"
ROWS = [(key, index) for key, t in read_published().tables.items() for index in range(len(t.rows))]

FILE = """
papers:
  net: {name: Net, authors: A, title: A net, arxiv: "1", year: 2020}
protocols:
  net: {dataset: shapes, iterations: 20}
tables:
  net.table1:
    paper: net
    table: Table 1
    split: val
    metric: miou
    settings: {backbone: resnet18, iterations: 30}
    rows:
      - {rates: [1, 2], pooling: false, miou: 60}
      - {rates: [1, 2], pooling: true, miou: 62.5}
      - {rates: [2, 4], pooling: true, miou: 61.0}
facts: {}
receptive_field: {}
data: {}
reproductions: {}
disagreements: []
"""


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read published numbers from a text in place of the committed file."""

    def write(text: str) -> None:
        path = tmp_path / "published.yaml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(published, "PUBLISHED_FILE", path)
        read_published.cache_clear()

    yield write
    read_published.cache_clear()


def cite(table: str, **row: Any) -> published.Published:
    return find_published(Citation(table=table, row=row))


# The committed file


@pytest.mark.parametrize(("table", "index"), ROWS)
def test_every_row_can_be_cited_and_is_a_percentage(table: str, index: int) -> None:
    settings = read_published().tables[table].settings_of(index)
    found = cite(table, **settings)
    assert found.index == index
    assert 0 < found.value < 100
    assert "miou" not in found.settings


@pytest.mark.parametrize(
    ("table", "row", "value"),
    [
        ("deeplabv1.table1", {"variant": "DeepLab-LargeFOV", "msc": True, "crf": True}, 68.70),
        ("deeplabv2.table1", {"kernel": 4, "atrous_rate": 8, "crf": False}, 63.41),
        ("deeplabv2.table2", {"batch_size": 10, "iterations": 20000}, 65.88),
        ("deeplabv2.table3", {"variant": "ASPP-L", "crf": True}, 71.57),
        ("deeplabv2.table4", {"variant": "ASPP", "crf": True}, 77.69),
        ("fcn.table2", {"variant": "FCN-8s"}, 62.7),
        ("pspnet.table3", {"backbone": "resnet101", "multi_scale": False}, 41.96),
        ("pspnet.table3", {"backbone": "resnet101", "multi_scale": True}, 43.29),
        ("pspnet.table3", {"backbone": "resnet152", "multi_scale": True}, 43.51),
        ("deeplabv3.table1", {"output_stride": 256}, 20.29),
        ("deeplabv3.table2", {"backbone": "resnet50", "cascaded_blocks": 2}, 74.29),
        ("deeplabv3.table3", {"multi_grid": [2, 2, 2], "cascaded_blocks": 0}, 71.45),
        ("deeplabv3.table4", {"flip": True}, 79.35),
        ("deeplabv3.table5", {"image_pooling": True}, 77.21),
        ("deeplabv3.table6", {"coco": True}, 82.70),
        ("deeplabv3.table8", {"batch_norm": "frozen"}, 75.95),
        ("deeplabv3.table9", {"batch_size": 4}, 64.43),
        ("deeplabv3.table10", {"output_stride": 32, "eval_output_stride": 8}, 75.75),
        ("deeplabv3plus.table1", {"low_level_channels": 48}, 78.21),
        ("deeplabv3plus.table2", {"conv3": True}, 78.61),
        ("deeplabv3plus.table3", {"madds_b": 81.02}, 77.21),
    ],
)
def test_numbers_as_printed(table: str, row: dict[str, Any], value: float) -> None:
    assert cite(table, **row).value == value


def test_tables_that_repeat_a_result_agree() -> None:
    best = {"multi_grid": [1, 2, 4], "image_pooling": True}
    same = [
        cite("deeplabv3.table5", **best),
        cite("deeplabv3.table6", eval_output_stride=16),
        cite("deeplabv3.table8", crop_size=[513, 513], loss_resolution="image", batch_norm="train"),
        cite("deeplabv3.table9", batch_size=16),
        cite("deeplabv3.table10", output_stride=16, eval_output_stride=16),
        cite("deeplabv3.table11", replicas=1),
        cite("deeplabv3plus.table3", decoder=False, output_stride=16, eval_output_stride=16),
    ]
    assert {found.value for found in same} == {77.21}
    for blocks in range(4):
        plain = {"multi_grid": [1, 1, 1], "cascaded_blocks": blocks}
        deep = cite("deeplabv3.table2", backbone="resnet101", cascaded_blocks=blocks)
        assert cite("deeplabv3.table3", **plain).value == deep.value


def test_field_of_view_is_that_of_the_kernel() -> None:
    for row in read_published().tables["deeplabv2.table1"].rows:
        kernel, rate, fov = (int(str(row[key])) for key in ("kernel", "atrous_rate", "fov"))
        assert fov == (kernel - 1) * rate * 8 + 32


def test_counts_add_up() -> None:
    data = read_published().data
    voc, sbd = data["voc2012"]["images"], data["sbd"]["images"]
    assert voc["train"] + voc["val"] == voc["trainval"]
    assert sbd["train"] + sbd["val"] == sbd["total"]
    assert len(data["voc2012"]["classes"]) == 21


# Citations


def test_the_nearest_setting_wins(use: Any) -> None:
    use(FILE)
    found = cite("net.table1", rates=(1, 2), pooling=True)
    assert (found.value, found.table, found.paper.name) == (62.5, "Table 1", "Net")
    assert found.settings == {
        "split": "val",
        "dataset": "shapes",
        "iterations": 30,
        "backbone": "resnet18",
        "rates": (1, 2),
        "pooling": True,
    }


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        (
            "net.tabel1",
            {},
            "'net.tabel1' is not a table of results/published.yaml; "
            "the nearest valid one is 'net.table1'",
        ),
        (
            "net.table1",
            {"poling": True},
            "net.table1 has no column 'poling'; the nearest valid one is 'pooling'",
        ),
        (
            "net.table1",
            {"rates": [2, 4], "pooling": False},
            "net.table1 has no row of rates 2 4, pooling false; "
            "the nearest has rates 1 2, pooling false",
        ),
        (
            "net.table1",
            {"pooling": 1, "rates": [2, 4]},
            "net.table1 has no row of pooling 1, rates 2 4; "
            "the nearest has pooling true, rates 2 4",
        ),
        ("net.table1", {"pooling": True}, "net.table1 has 2 rows of pooling true: say rates too"),
        (
            "net.table1",
            {},
            "net.table1 has 3 rows of no setting: say rates or pooling too",
        ),
    ],
)
def test_a_citation_that_fits_no_one_row(
    use: Any, table: str, row: dict[str, Any], message: str
) -> None:
    use(FILE)
    with pytest.raises(PublishedError) as raised:
        cite(table, **row)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("miou: 60}", "miou: 160}", "tables.net.table1: row 0 has the miou 160, not a percentage"),
        ("miou: 60}", "miou: high}", "tables.net.table1: row 0 has the miou 'high'"),
        (", miou: 60}", "}", "tables.net.table1: row 0 has the miou None"),
        ("pooling: false", "poling: false", "tables.net.table1: row 1 has other keys"),
        ("pooling: false", "pooling: true", "tables.net.table1: row 1 has the settings of one"),
        ("    paper: net", "    paper: web", "tables.net.table1 is of the paper 'web'"),
        ("  net: {dataset", "  web: {dataset", "papers and protocols have other keys"),
        ("split: val", "split: vale", "tables.net.table1.split: "),
        ("facts: {}", "fact: {}", "facts: Field required"),
        ("facts: {}", "facts: {", "cannot be read"),
    ],
)
def test_a_damaged_file_is_named(use: Any, old: str, new: str, message: str) -> None:
    assert old in FILE
    use(FILE.replace(old, new))
    with pytest.raises(PublishedError, match=r"^results/published\.yaml") as raised:
        cite("net.table1")
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


# In params.yaml


PARAMS = """
run: {profiles: [p], models: [net], seeds: [0], hardware: [cpu], inference: [plain], crf: [],
  audit: [], label_files: []}
profile:
  p:
    data: {dataset: shapes, seed: 0, image_size: 32, train_images: 8, val_images: 4}
    model: {backbone: resnet18, width: 0.25, output_stride: 16}
    training: {iterations: 4, batch_size: 2, crop_size: [32, 32], base_lr: 0.05, poly_power: 0.9,
      momentum: 0.9, weight_decay: 0.0001, random_scale: [0.5, 2.0], horizontal_flip: true,
      precision: float32}
inference: {plain: {}}
models:
  net: {architecture: fcn}
"""


def params_of(tmp_path: Path, cited: Any, key: str = "published") -> Params:
    """Load settings with a citation in the block of ``net``."""
    block = "" if cited is None else f", {key}: {json.dumps(cited)}"
    text = PARAMS.replace("architecture: fcn", f"architecture: fcn{block}")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    return load_params(tmp_path / "params.yaml")


BEST: dict[str, Any] = {"table": "deeplabv3.table5", "row": {"image_pooling": True}}
SIXTH: dict[str, Any] = {"table": "deeplabv3.table6", "row": {"eval_output_stride": 16}}


def test_a_citation_changes_no_setting(tmp_path: Path) -> None:
    plain, citing = params_of(tmp_path, None), params_of(tmp_path, BEST)
    assert plain.citations("net") == []
    assert citing.citations("net") == [Citation(**BEST)]
    for params in (plain, citing):
        assert "published" not in params.experiment("p", "net").model_dump_json()
    digests = {compute_settings_sha256(p.experiment("p", "net"), 0) for p in (plain, citing)}
    assert len(digests) == 1


def test_a_model_may_stand_for_rows_of_several_tables(tmp_path: Path) -> None:
    citations = params_of(tmp_path, [BEST, SIXTH]).citations("net")
    assert [c.table for c in citations] == ["deeplabv3.table5", "deeplabv3.table6"]


@pytest.mark.parametrize(
    ("cited", "message"),
    [
        ("deeplabv3", 'models.net.published is "deeplabv3"'),
        ([None], "models.net.published is null"),
        ({"table": "deeplabv3.table5"}, "models.net.published.row is missing"),
        (BEST | {"rows": {}}, "models.net.published.rows is not a known key; .* 'row'"),
        (BEST | {"table": 5}, "models.net.published.table is 5"),
        (BEST | {"inference": "os9"}, r"models.net.published.inference: 'os9' is not defined"),
        (BEST | {"row": {"image_poling": True}}, "models.net.published: .* 'image_pooling'"),
        ([BEST, BEST | {"row": {}}], "models.net.published: deeplabv3.table5 has 5 rows"),
    ],
)
def test_a_wrong_citation_is_refused_at_once(tmp_path: Path, cited: Any, message: str) -> None:
    with pytest.raises(ParamsError, match=f"params.yaml: {message}") as raised:
        params_of(tmp_path, cited)
    assert len(str(raised.value).splitlines()) == 1


def test_a_misspelt_citation_is_an_unknown_key(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"models\.net\.publised .*'published'$"):
        params_of(tmp_path, BEST, key="publised")


@cache
def committed_citations() -> tuple[Params, list[Cited]]:
    """List the citations of every model of the committed file, under every way of inference."""
    params = load_params(COMMITTED)
    run = {"models": tuple(params.models), "inference": tuple(params.inference)}
    params = params.model_copy(update={"run": params.run.model_copy(update=run)})
    return params, find_cited(params)


def test_no_two_models_are_said_to_be_the_same_row() -> None:
    params, cited = committed_citations()
    families = {*params.with_profile("voc_animals").run.models}
    families.update(params.studies["context_parts"].models)
    rows = [(c.published.reference, c.published.index) for c in cited if c.model not in families]
    assert sorted(rows) == sorted(set(rows))


def test_the_catalogue_is_trained_as_the_papers_say() -> None:
    """Check that settings on VOC 2012 differ from DeepLab's papers only in COCO pretraining.

    The families of Figure 2 and parts of them have the profile's backbone and schedule: they cite
    orderings alone.
    """
    params, cited = committed_citations()
    deeplab = [
        c
        for c in cited
        if c.published.settings["dataset"] == "voc2012"
        and c.model not in params.studies["figure2"].models + params.studies["context_parts"].models
    ]
    assert len(deeplab) > 50
    otherwise = {
        c.name: find_differences(collect_settings(params, "voc2012", c), c.published)
        for c in deeplab
    }
    assert {name: reasons for name, reasons in otherwise.items() if reasons} == {
        "deeplabv2_resnet101_largefov": ["coco false instead of true"],
        "deeplabv2_resnet101_aspp": ["coco false instead of true"],
    }


@cache
def load_committed() -> Params:
    return load_params(COMMITTED)


def citations_of_study(name: str) -> list[tuple[str, Citation, published.Published]]:
    """List the rows of a study's tables on VOC 2012 val that its models cite."""
    params = load_committed()
    study = params.studies[name]
    paper, _, tables = study.paper.partition(", Table")
    numbers = re.findall(r"\d+", tables)
    cited = [(m, c, find_published(c)) for m in study.models for c in params.citations(m)]
    return [
        (model, citation, row)
        for model, citation, row in cited
        if row.paper.name == paper
        and row.table.removeprefix("Table ") in numbers
        and row.settings["dataset"] == "voc2012"
    ]


@pytest.mark.parametrize("name", load_committed().studies)
def test_a_study_says_what_its_paper_publishes(name: str) -> None:
    study = load_committed().studies[name]
    found = citations_of_study(name)
    values = [row.value for _, _, row in found]
    assert study.expect == ((min(values), max(values)) if values else None)
    assert set(study.inference) == {c.inference for _, c, _ in found} - {None}
    refined = {model for model, _, row in found if row.settings.get("crf") is True}
    assert set(study.crf) == refined or not found  # a figure has no rows that say so


def test_most_studies_have_published_scores() -> None:
    without = [name for name in load_committed().studies if not citations_of_study(name)]
    assert without == ["figure2", "same_stride", "fcn_skips", "pyramid_pooling", "scale_fusion"]


def test_values_in_words() -> None:
    assert published.describe_settings({"a": (1, 2), "b": True, "c": "x", "d": 0.5}) == (
        "a 1 2, b true, c x, d 0.5"
    )
    assert not published.is_same(1, True)
    assert published.is_same([1, 2], (1, 2))
    assert not published.is_same([1, 2], "12")
    assert not published.is_same(math.pi, 3)
