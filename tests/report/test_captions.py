"""Tests that captions are short and that the glossary has their terms."""

import json
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from test_report import declare, edit, write_results

from deeplab_bench.evaluation.measures.variants import VARIANTS
from deeplab_bench.report import captions
from deeplab_bench.report.captions import Caption, make_anchor
from deeplab_bench.report.loading import load_results
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.settings.inference import PLAIN

GLOSSARY = (Path(__file__).resolve().parents[2] / captions.GLOSSARY).read_text(encoding="utf-8")
HEADINGS = re.findall(r"(?m)^#+ (.+)$", GLOSSARY)
# Hardware and versions, which follow the sentences.
HARDWARE = re.compile(r" (Trained on|Up to [\d.]+ s|cpu:|CRF: one process) .*")


def describe_all(seeds: int) -> dict[str, Caption]:
    models = ("aspp", "image_pyramid")
    params = declare(models, range(seeds), crf=["aspp"], audit=["aspp"])
    write_results(params)
    results = load_results(params, "quick")
    described = {
        "accuracy": captions.describe_accuracy,
        "per_class": captions.describe_per_class,
        "object_size": captions.describe_object_size,
        "boundaries": captions.describe_boundaries,
        "inference": captions.describe_inference,
        "comparisons": captions.describe_comparisons,
        "crf": captions.describe_crf,
        "protocol_audit": captions.describe_protocol_audit,
        "receptive_field": captions.describe_receptive_field,
        "speed": captions.describe_speed,
        "training_speed": captions.describe_training_speed,
    }
    found = {name: describe(results) for name, describe in described.items()}
    found["values"] = captions.describe_paper_values(results, [])
    found["orderings"] = captions.describe_paper_orderings(results, [], ["agrees"])
    learning_curves = captions.describe_learning_curves(results)
    assert learning_curves is not None
    return found | {"atrous": captions.describe_atrous(), "learning_curves": learning_curves}


@pytest.mark.parametrize("seeds", [1, 3])
def test_two_sentences_and_known_terms(
    seeds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, caption in describe_all(seeds).items():
        text = HARDWARE.sub("", caption.text).removesuffix(" .")  # no papers
        assert len(re.findall(r"\.(?= |$)", text)) <= 2, (name, text)
        assert caption.text.endswith("."), name
        assert caption.terms, name
        assert set(caption.terms) <= set(HEADINGS), name


def caption_of(data: dict[str, Any], names: Sequence[str], seeds: int = 3) -> Caption:
    """The caption of the accuracy of runs on images of these names."""
    params = declare(seeds=range(seeds), data=data)
    write_results(params)
    images = {name: [[0, 3, 4]] for name in names}
    for model, seed in product(params.run.models, params.run.seeds):
        edit(RunFiles("quick", model, seed).evaluation(PLAIN), images=images)
    return captions.describe_accuracy(load_results(params, "quick"))


FOLDER = {"dataset": "folder", "root": "."}
CLIPS = ["a_1", "a_2", "b_1", "b_2", "b_3"]


@pytest.mark.parametrize(
    ("data", "names", "seeds", "expected"),
    [
        (FOLDER, CLIPS, 3, "95 % interval over seeds and images (10,000 resamples)."),
        (
            FOLDER | {"group_pattern": "^."},
            CLIPS,
            3,
            "over seeds and images (10,000 resamples of 2 groups of 2 or 3 images).",
        ),
        (
            FOLDER | {"group_pattern": "^."},
            CLIPS[:4],
            1,
            "over images alone (10,000 resamples of 2 groups of 2 images), as there is 1 seed.",
        ),
        (
            FOLDER | {"group_pattern": "^."},
            CLIPS[:2],
            3,
            "over seeds alone, as there is 1 group of images.",
        ),
        (
            {"dataset": "camvid"},
            [f"0016E5_{frame:05d}" for frame in range(101)],
            1,
            "(10,000 resamples of 4 blocks of 25 or 26 consecutive frames), as there is 1 seed.",
        ),
    ],
)
def test_the_caption_says_what_is_resampled(
    data: dict[str, Any],
    names: list[str],
    seeds: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    caption = caption_of(data, names, seeds)
    assert expected in caption.text
    assert ("Groups of images" in caption.terms) == ("group" in expected or "block" in expected)
    assert set(caption.terms) <= set(HEADINGS)


@pytest.mark.parametrize(
    ("val_split", "images"), [("val", "1 validation images"), ("test", "1 test images")]
)
def test_camvids_split_is_named(
    val_split: str, images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    caption = caption_of({"dataset": "camvid", "val_split": val_split}, ["0016E5_07959"])
    assert f"on {images}, " in caption.text
    assert ("published figures are on CamVid's test split (233 images)" in caption.text) == (
        val_split == "val"
    )


def test_a_timed_batch_that_is_smaller_than_that_of_training_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = declare()
    write_results(params)
    batch = params.experiment("quick", "aspp").training.batch_size
    for timed in (batch, batch - 1):
        for model in params.run.models:
            path = ProfileFiles("quick").speed("cpu", model)
            training = json.loads(path.read_text(encoding="utf-8"))["training"]
            edit(path, training=training | {"batch_size": timed})
        text = captions.describe_training_speed(load_results(params, "quick")).text
        assert (f"training has {batch} crops." in text) == (timed < batch)


def test_every_rule_of_the_audit_is_explained() -> None:
    assert set(VARIANTS) <= set(HEADINGS)


def test_the_glossary_links_to_its_own_headings() -> None:
    anchors = [make_anchor(heading) for heading in HEADINGS]
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([^)]+)\)", GLOSSARY)) <= set(anchors)


def test_links_lead_to_the_glossary() -> None:
    caption = Caption("Some text.", ("p", "Higher and undecided"))
    assert caption.format_markdown("../../") == (
        "Some text.\n\nTerms: [p](../../docs/glossary.md#p), "
        "[Higher and undecided](../../docs/glossary.md#higher-and-undecided)."
    )
    assert caption.on_paper == ("Some text.", "")
    longer = caption._replace(short="Short, 4.5 %.").add("More.", "Most.")
    assert longer.text == "Some text. More. Most."
    assert longer.on_paper == ("Short, 4.5 %.", "More. Most.")
    assert Caption("Some text.").format_markdown("../../") == "Some text."
