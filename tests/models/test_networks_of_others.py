"""Tests of the networks of other libraries that docs/networks.md adds."""

import csv
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from miniature import MINIATURE, ROOT, Repository

from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.settings import params as params_module
from deeplab_bench.settings.blocks import ParamsError
from deeplab_bench.settings.loading import parse_params

pytestmark = pytest.mark.long(seconds=30)

DOCUMENT = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
NETWORK = r"`deeplab_bench/models/(\w+)\.py`.*?```python\n(.*?)```"
CODE = dict(re.findall(NETWORK, DOCUMENT, flags=re.DOTALL))
BLOCKS = re.findall(r"```yaml\nmodels:\n(.*?)```", DOCUMENT, flags=re.DOTALL)


def test_they_are_trained_evaluated_timed_and_reported(tmp_path: Path) -> None:
    assert list(CODE) == ["lraspp", "smp_deeplab"]
    repository = Repository(tmp_path)
    for name, code in CODE.items():
        repository.add_architecture(name, of="fcn")
        path = tmp_path / "deeplab_bench" / "models" / f"{name}.py"
        path.write_text(code, encoding="utf-8")
        repository.edit("models:\n", f"models:\n{find_block(name)}")
    repository.edit("models: [fcn, aspp]", f"models: [{', '.join(CODE)}]")
    ran = repository.repro()
    assert {f"speed@miniature-cpu-{name}" for name in CODE} < ran
    tables = tmp_path / "results" / "miniature" / "tables"
    for row in read_rows(tables / "accuracy.csv"):
        assert row["model"] in CODE
        assert row["output_stride"] == ""
        assert float(row["gflops"]) > 0
    fields = {row["model"]: row["field_px"] for row in read_rows(tables / "receptive_field.csv")}
    assert fields == {"lraspp": "", "smp_deeplab": ""}  # both pool the whole map


def find_block(name: str) -> str:
    blocks = next(block for block in BLOCKS if f"  {name}:" in block)
    return f"  {name}:" + re.split(r"(?m)^  (?=\w)", blocks.partition(f"  {name}:")[2])[0]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("key", "value"), [("weights", "imagenet"), ("zero_init_residual", "true")]
)
def test_what_needs_a_backbone_of_ours_is_refused(
    key: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("deeplab_bench.models.lraspp")
    exec(CODE["lraspp"], module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(params_module, "ARCHITECTURES", (*ARCHITECTURES, "lraspp"))
    network = f"    architecture: lraspp\n    training: {{{key}: {value}}}\n"
    text = MINIATURE.replace("    architecture: fcn\n    output_stride: 32\n", network)
    assert text != MINIATURE
    with pytest.raises(ParamsError, match=f"training.{key} needs: set it to"):
        parse_params(text, Path("params.yaml"))
