"""Tests of what `cite` prints."""

import re
import tomllib
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest
from miniature import ROOT
from ruamel.yaml import YAML
from test_latex import compile_text
from test_report import declare, write_results

from deeplab_bench.data.registry import DATA_SETS as REGISTERED_DATA_SETS
from deeplab_bench.models.backbone import BackboneName
from deeplab_bench.models.registry import ARCHITECTURES as REGISTERED
from deeplab_bench.report import write_report
from deeplab_bench.report.citation import (
    ARCHITECTURES,
    BACKBONES,
    CITATION,
    DATA_SETS,
    cite,
    find_entry,
    list_references,
)
from deeplab_bench.report.loading import load_results
from deeplab_bench.report.results import ReportError
from deeplab_bench.settings.params import Params


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    CITATION.write_bytes((ROOT / CITATION).read_bytes())
    params = declare()
    row = {"table": "deeplabv2.table3", "row": {"variant": "LargeFOV", "crf": False}}
    params.models["aspp"]["published"] = [row]
    write_results(params)
    return params


def test_the_papers_the_table_and_the_sentence(params: Params) -> None:
    text = cite(load_results(params, "quick"), "aspp")
    assert re.findall(r"@(\w+){([^,]+),", text) == [
        ("software", "deeplab-bench"),
        ("misc", "arxiv:1606.00915"),
        ("misc", "arxiv:1706.05587"),
        ("misc", "resnet"),
    ]
    assert "author = {Chen, Liang-Chieh and Papandreou, George and Schroff, Florian" in text
    assert r"\input{results/quick/tables/accuracy}" in text
    sentence = text.rpartition("\n")[2]
    assert sentence.startswith("aspp, trained and scored by deeplab-bench ")
    assert r", has an mIoU of 72.00 \% (mean of 3 seeds, 95 \% interval" in sentence
    assert sentence.endswith("over seeds and images; an unknown commit).")
    assert not re.search(r"\. ", sentence)


@pytest.mark.usefixtures("_without_figures")
def test_a_document_that_cites_compiles(params: Params, tmp_path: Path) -> None:
    write_report(params, "quick")
    _, _, methods = cite(load_results(params, "quick"), "aspp").partition("% the table")
    compile_text(f"%{methods}", tmp_path)


def test_a_model_without_results(params: Params) -> None:
    with pytest.raises(ReportError, match="results/quick has no model 'psp': it has aspp, image"):
        cite(load_results(params, "quick"), "psp")


def test_every_network_and_data_set_is_cited() -> None:
    assert set(ARCHITECTURES) == set(REGISTERED)
    assert set(BACKBONES) == set(get_args(BackboneName))
    assert set(REGISTERED_DATA_SETS) - set(DATA_SETS) == {"shapes", "folder"}
    for key in (*ARCHITECTURES.values(), *BACKBONES.values(), *chain(*DATA_SETS.values())):
        assert re.match(r"@\w+{[^,]+,\n  title = {.+},\n  author = ", find_entry(key)), key


def test_what_a_model_is_made_of_is_cited(params: Params) -> None:
    results = replace(load_results(params, "quick"), params=declare(data={"dataset": "voc2012"}))
    assert list_references(results, "psp") == ["deeplabv3", "pspnet", "resnet", "voc", "sbd"]
    assert list_references(results, "deeplabv3plus")[:2] == ["deeplabv3", "deeplabv3plus"]


def test_versions_are_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert YAML(typ="safe").load(ROOT / CITATION)["version"] == project["version"]
