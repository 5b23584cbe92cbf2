"""Tests of the graph of stages."""

from pathlib import Path

import networkx as nx
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from deeplab_bench.command_line import run
from pipelines.dag import build_graph

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # of a dependency of DVC
def test_it_is_that_of_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the paths between stages against DVC's graph of all runs."""
    monkeypatch.chdir(ROOT)
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    ours = nx.transitive_closure(build_graph(stages))
    with Repo() as repo:
        names = {each: each.addressing.partition("@")[0] for each in repo.index.graph}
        runs = nx.transitive_closure(repo.index.graph)
        theirs = {(names[b], names[a]) for a, b in runs.edges}
    assert set(ours.subgraph(names.values()).edges) == theirs


def test_the_command_counts_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert run(["dag"]) == 0
    printed = capsys.readouterr().out
    assert "train (27)" in printed and "crf (6)" in printed and "report (1)" in printed
    assert run(["dag", "--mermaid"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("graph TD\n") and "  prepare --> train\n" in printed
