"""Tests of what the driver of a sweep reads of params.yaml."""

from pathlib import Path

import pytest

from deeplab_bench.settings.blocks import ParamsError
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.sweep import load_sweep_params

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_what_the_whole_file_says() -> None:
    part, whole = load_sweep_params(ROOT / "params.yaml"), load_params(ROOT / "params.yaml")
    assert part.run.profiles == whole.run.profiles
    assert part.cluster == whole.cluster
    for name, profile in whole.profile.items():
        assert part.profile[name].process == profile.process
        assert part.profile[name].resources == profile.resources


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run: {profiles: [a}", "is not valid YAML"),
        ("{run: {profiles: [a]}, profile: {b: {}}}", "run.profiles: 'a' is not defined"),
        (
            "{run: {profiles: [a]}, profile: {a: {resources: {gpus: 2}}}}",
            "profile.a.resources.gpus: Input should be less than or equal to 1",
        ),
        (
            "{run: {profiles: [a]}, profile: {a: {}}, cluster: {slurms: {}}}",
            "cluster.slurms is not a known key",
        ),
        ("{profile: {a: {}}}", "run: Field required"),
    ],
)
def test_a_mistake_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        load_sweep_params(path)
    assert str(caught.value).startswith(f"{path}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="is missing: run from the repository's root"):
        load_sweep_params(tmp_path / "params.yaml")
