"""Tests of the registry: data sets have one file and one line each, and import no models."""

from pathlib import Path
from typing import get_args

import pytest

from deeplab_bench import data
from deeplab_bench.data.registry import DATA_SETS
from deeplab_bench.results.code_digest import list_imported_files

FOLDER = Path(data.__path__[0])
OF_MODELS: tuple[str, ...] = (
    "deeplab_bench/models/",
    "deeplab_bench/training/",
    "deeplab_bench/evaluation/",
)
NAMES = ("experiment", "inference", "crf", "params", "blocks")
OF_MODELS += tuple(f"deeplab_bench/settings/{name}.py" for name in NAMES)


@pytest.mark.parametrize(
    "module",
    [f"deeplab_bench.data.{path.stem}" for path in sorted(FOLDER.glob("*.py"))]
    + ["pipelines.download", "pipelines.prepare"],
)
def test_data_import_nothing_of_models(module: str) -> None:
    """Check that an edit of a model does not cause the data to be prepared again."""
    files = list_imported_files([module.removesuffix(".__init__")])
    assert files
    assert [path for path in files if path.startswith(OF_MODELS)] == []


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_is_one_file(name: str) -> None:
    data_set = DATA_SETS[name]
    assert data_set.__module__ == f"deeplab_bench.data.{name}"
    assert get_args(data_set.model_fields["dataset"].annotation) == (name,)
