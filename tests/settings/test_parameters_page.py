"""The page docs/parameters.md, which is made from the schemas: ``python <this file>`` writes it."""

import ast
import inspect
import re
import types
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from deeplab_bench.data.registry import DATA_SETS
from deeplab_bench.models import find_network_class, list_arguments
from deeplab_bench.models.aspp import ASPP
from deeplab_bench.models.aspp_sum import ASPPSum
from deeplab_bench.models.backbone import ResNet
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.models.vgg import VGG16
from deeplab_bench.settings.cluster import Cluster, Resources
from deeplab_bench.settings.crf import CRF, CRFSearch
from deeplab_bench.settings.inference import Inference
from deeplab_bench.settings.label_files import LabelFiles
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.pretraining import Pretraining
from deeplab_bench.settings.process import Process
from deeplab_bench.settings.published import Citation
from deeplab_bench.settings.sections import Profile, ProfileRun, RunSettings, SecondPhase, Study
from deeplab_bench.settings.training import Training

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parameters.md"
SECTIONS: dict[str, type[BaseModel]] = {
    "run": RunSettings,
    "profile.<name>": Profile,
    "profile.<name>.run": ProfileRun,
    "profile.<name>.resources": Resources,
    "profile.<name>.process": Process,
    "profile.<name>.training": Training,
    "profile.<name>.pretraining": Pretraining,
    "profile.<name>.crf": CRF,
    "profile.<name>.crf.search": CRFSearch,
    **{f"profile.<name>.data, dataset: {name}": schema for name, schema in DATA_SETS.items()},
    "models.<name>.second_phase": SecondPhase,
    "models.<name>.published": Citation,
    "models.<name>, of label files": LabelFiles,
    "inference.<name>": Inference,
    "studies.<name>": Study,
    "cluster": Cluster,
}
INTRODUCTION = """\
# Parameters

Every key that `params.yaml` may have. `python tests/settings/test_parameters_page.py` makes this
page from the code. A key without a default has to be there; an argument of an architecture may also
stand in the profile's `model`. Nothing is `null` in YAML. Unknown keys and wrong values are refused
before any work. `params.yaml` itself explains the other keys of a model's block: `architecture`,
`extends`, `training`, `per_profile`.
"""
# Architectures whose docstrings others refer to; what ResNet's says holds for all backbones.
REFERRED = {network.__name__: network for network in (ResNet, VGG16, ASPP, ASPPSum)}
OF_ALL = {"backbone": "The backbone, by name.", "head_channels": "Channels of the head's layers."}
WORDS = {int: "integer", float: "number", str: "text", bool: "true or false"}


def format_page() -> str:
    blocks = [INTRODUCTION.rstrip()]
    for name, schema in SECTIONS.items():
        blocks += [f"## `{name}`", convert_prose(inspect.getdoc(schema) or "")]
        meanings = read_meanings(schema)
        rows = [
            (key, describe_type(field.rebuild_annotation()), describe_default(field), meanings[key])
            for key, field in schema.model_fields.items()
        ]
        blocks.append(format_table(rows))
    for architecture in ARCHITECTURES:
        network = find_network_class(architecture)
        blocks += [f"## `models.<name>`, architecture: {architecture}"]
        blocks += [convert_prose(inspect.getdoc(network) or "")]
        said = OF_ALL | read_arguments(ResNet) | read_arguments(network)
        rows = [
            (
                key,
                describe_type(p.annotation),
                "" if p.default is p.empty else show(p.default),
                said.get(key, ""),
            )
            for key, p in list_arguments(architecture).items()
        ]
        blocks.append(format_table(rows))
    return "\n\n".join(filter(None, blocks)) + "\n"


def format_table(rows: list[tuple[str, str, str, str]]) -> str:
    lines = [
        f"| `{key}` | {kind} | {default} | {meaning.replace('``', '`')} |"
        for key, kind, default, meaning in rows
    ]
    return "\n".join(["| Key | Value | Default | Meaning |", "|:--|:--|:--|:--|", *lines])


def read_meanings(schema: type[BaseModel]) -> dict[str, str]:
    """Read the string after each field of a schema, as far as there is one."""
    (node,) = ast.parse(inspect.getsource(RunSettings if schema is ProfileRun else schema)).body
    assert isinstance(node, ast.ClassDef)
    return {
        field.target.id: said.value.value
        for field, said in pairwise(node.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(said, ast.Expr)
        and isinstance(said.value, ast.Constant)
        and isinstance(said.value.value, str)
    }


def read_arguments(network: type) -> dict[str, str]:
    """Read what the docstring of a network says of each argument."""
    meanings = {}
    docstring, _, _ = (inspect.getdoc(network) or "").partition("\nRaises:\n")
    _, _, arguments = docstring.partition("\nArgs:\n")
    for names, said in re.findall(r"(?m)^    (\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", arguments):
        for name in names.split(", "):
            text = " ".join(said.split())
            if found := re.match(r"as in ``(\w+)``[.,;]? ?", text):
                elsewhere = read_arguments(REFERRED[found[1]])[name]
                text = f"{elsewhere} {capitalise(text[found.end() :])}".strip()
            meanings[name] = capitalise(text)
    return meanings


def capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def convert_prose(docstring: str) -> str:
    """Convert a docstring to Markdown, without its arguments and errors."""
    text = re.split(r"\n(?:Args|Raises):\n", docstring)[0]
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs).replace("``", "`")


def describe_type(annotation: Any) -> str:
    """Describe the values that an annotation allows, in plain words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = ", ".join(describe_limits(arguments[1:]))
        return describe_type(arguments[0]) + (f" {limits}" if limits else "")
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        kinds = dict.fromkeys(describe_type(kind) for kind in arguments if kind is not type(None))
        return " or ".join([*kinds, *(["nothing"] if type(None) in arguments else [])])
    if origin is tuple and Ellipsis not in arguments:
        return f"[{', '.join(map(describe_type, arguments))}]"
    if origin is not None and origin is not dict:
        return f"list of {describe_type(arguments[0])}"
    if (inspect.isclass(annotation) and issubclass(annotation, BaseModel)) or origin is dict:
        return "section"
    return WORDS.get(annotation, "value")


def describe_limits(metadata: tuple[Any, ...]) -> Iterator[str]:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "multiple_of": "multiple of"}
    for each in metadata:
        parts = each.metadata if isinstance(each, FieldInfo) else [each]
        for part in parts:
            for name, sign in signs.items():
                if (limit := getattr(part, name, None)) is not None:
                    yield f"{sign} {limit}"


def describe_default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    return "" if default is PydanticUndefined else show(default)


def show(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(show, value))}]"
    return f"`{value}`" if isinstance(value, str) else str(value)


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == format_page(), f"run python {Path(__file__).name}"


def test_every_key_has_a_line() -> None:
    page = format_page()
    for schema in SECTIONS.values():
        for key in schema.model_fields:
            assert f"| `{key}` |" in page
    assert "value |" not in page  # a type without words


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_has_a_meaning(section: str) -> None:
    schema = SECTIONS[section]
    assert read_meanings(schema).keys() >= schema.model_fields.keys()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_argument_has_a_meaning(architecture: str) -> None:
    said = OF_ALL | read_arguments(ResNet) | read_arguments(find_network_class(architecture))
    assert said.keys() >= list_arguments(architecture).keys()


def test_every_section_of_the_schemas_is_on_the_page() -> None:
    """Check that no section of params.yaml, at any depth, is left out."""
    found: set[type[BaseModel]] = set()
    pending: list[Any] = [Params]
    while pending:
        annotation = pending.pop()
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            found.add(annotation)
            pending += [field.annotation for field in annotation.model_fields.values()]
        pending += get_args(annotation)
    assert found - {Params} <= set(SECTIONS.values())


if __name__ == "__main__":
    PAGE.write_text(format_page(), encoding="utf-8")
