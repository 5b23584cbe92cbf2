"""Command ``dag``: the graph of the stages. ``dvc dag`` draws every run of every stage."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import networkx as nx
from ruamel.yaml import YAML

from deeplab_bench.settings.loading import load_params

LIST_OF_RUN = re.compile(r"\$\{run\.(\w+)\}")


def main(*, mermaid: Annotated[bool, "print it for Mermaid, which GitHub draws"] = False) -> None:
    """
    Raises:
        ParamsError: params.yaml is wrong.
    """
    run = load_params().run.model_dump()
    stages = YAML(typ="safe").load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    graph = nx.relabel_nodes(
        build_graph(stages),
        {name: f"{name} ({count_runs(stage, run)})" for name, stage in stages.items()},
    )
    print("\n".join(draw_mermaid(graph) if mermaid else nx.generate_network_text(graph)))
    print("%% " * mermaid + "in brackets: the number of runs that params.yaml declares")


def build_graph(stages: Mapping[str, Any]) -> nx.DiGraph:
    """Connect each stage with those that it needs; what follows from others is left out."""
    graph = nx.DiGraph()
    graph.add_nodes_from(stages)
    for name, stage in stages.items():
        for needed, other in stages.items():
            pairs = [(d, o) for d in list_paths(stage, "deps") for o in list_paths(other, "outs")]
            if name != needed and any(is_inside(d, o) or is_inside(o, d) for d, o in pairs):
                graph.add_edge(needed, name)
    return nx.transitive_reduction(graph)


def list_paths(stage: Mapping[str, Any], key: str) -> list[str]:
    """List dependencies or outputs; an output may be a mapping of its path to its settings."""
    return [path if isinstance(path, str) else next(iter(path)) for path in stage.get(key, ())]


def is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def count_runs(stage: Mapping[str, Any], run: Mapping[str, Any]) -> int:
    lists = LIST_OF_RUN.findall(" ".join(map(str, stage["matrix"].values())))
    return math.prod(len(run[name]) for name in lists)


def draw_mermaid(graph: nx.DiGraph) -> list[str]:
    names = {node: node.partition(" ")[0] for node in graph}
    nodes = [f'  {name}["{node}"]' for node, name in names.items()]
    return ["graph TD", *nodes, *(f"  {names[a]} --> {names[b]}" for a, b in graph.edges)]
