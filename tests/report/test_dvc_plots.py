"""Tests of the pages that ``dvc plots`` writes: in a browser, without a network."""

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from miniature import AUTHOR, ROOT
from test_web import BROWSER

from deeplab_bench.training.live import DVCLiveWriter

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
CURVES = Path("results/quick/tables/training_curves.csv")
LIVE = Path("logs/live/quick/aspp-0")
# Leaves on the page what the network was asked for, and what is drawn.
ACTIONS = """<script>
setTimeout(() => {
  document.body.dataset.seen = JSON.stringify({
    fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
    curves: document.querySelectorAll("svg .mark-line path[d]").length,
    text: document.body.innerText,
  });
}, 2000);
</script></body>"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a repository with the plots of ``dvc.yaml`` and curves of three models."""
    shutil.copytree(ROOT / ".dvc" / "plots", tmp_path / ".dvc" / "plots")
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc")
    (tmp_path / LIVE.parents[1]).mkdir(parents=True)
    for copied in (".dvcignore", ".gitignore", "logs/live/.gitkeep"):
        shutil.copy(ROOT / copied, tmp_path / copied)
    plots = (ROOT / "dvc.yaml").read_text(encoding="utf-8").partition("\nplots:\n")[2]
    (tmp_path / "dvc.yaml").write_text(f"plots:\n{plots}", encoding="utf-8")
    for path in (CURVES, Path("results/quick/plots/miou.png")):
        (tmp_path / path).parent.mkdir(parents=True)
        shutil.copy(ROOT / path, tmp_path / path)
    write_curves(tmp_path, loss=1.0)
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "a"]):
        run(tmp_path, "git", *AUTHOR, *command)
    return tmp_path


def write_curves(project: Path, loss: float) -> None:
    rows = [
        f"{model},{seed},{iteration},{loss + seed / iteration:.5f}"
        for model in ("fcn", "aspp", "psp")
        for seed in (0, 1)
        for iteration in (5, 10, 15)
    ]
    (project / CURVES).write_text("\n".join(["model,seed,iteration,loss", *rows, ""]))


def write_scripts(project: Path) -> None:
    """Write the scripts as the Makefile does."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    code = re.search(r"\tpython -c '(import pathlib, .*?)'", makefile, re.DOTALL)
    assert code is not None
    (project / ".venv").mkdir()
    run(project, sys.executable, "-c", code[1])


def run(project: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def open_page(project: Path, *command: str) -> dict[str, Any]:
    """Write the page, open it in a browser, and return what is on it."""
    run(project, sys.executable, "-m", "dvc", "plots", *command)
    path = project / "dvc_plots" / "index.html"
    path.write_text(path.read_text("utf-8").replace("</body>", ACTIONS), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={project / 'user'}"]
    page = run(project, str(BROWSER), *options, "--dump-dom", path.as_uri())
    seen = re.search(r'<body data-seen="(.*?)"', page, re.DOTALL)
    assert seen is not None
    return json.loads(unescape(seen[1]))


def test_pages_need_no_network(project: Path) -> None:
    write_scripts(project)
    shown = open_page(project, "show")
    write_curves(project, loss=2.0)
    compared = open_page(project, "diff", "HEAD")
    for page, revisions in ((shown, ["workspace"]), (compared, ["workspace", "HEAD"])):
        assert page["fetched"] == []
        assert page["curves"] == 3 * len(revisions)
        assert {"fcn", "aspp", "psp", *revisions} <= set(page["text"].splitlines())
        assert "Charts need" not in page["text"]


def test_curves_of_a_training_that_runs_are_drawn(project: Path) -> None:
    """Check a chart with its iterations, and that neither form of the folder has a warning."""
    assert "failed" not in show_warnings(project)
    live = DVCLiveWriter(project / LIVE, 0)
    (project / LIVE / "tensorboard").mkdir()
    (project / LIVE / "tensorboard" / "events.out").write_bytes(b"\0")
    for step in (10, 50, 90):
        live.write(step, {"val/miou": step / 100})
    assert "failed" not in show_warnings(project)
    page = (project / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    assert page.count('<div id = "logs_live_') == 1
    assert str(LIVE / "plots" / "metrics" / "val" / "miou.tsv") in page
    assert re.findall(r'"step": "(\d+)"', page) == ["10", "50", "90"]
    assert run(project, "git", "status", "--porcelain", "logs") == ""


def show_warnings(project: Path) -> str:
    """Write the page and return what DVC says beside its address."""
    command = [sys.executable, "-m", "dvc", "plots", "show"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stderr


def test_without_the_scripts_the_page_asks_the_network_and_says_so(project: Path) -> None:
    page = open_page(project, "show")
    hosts = [address.split("/")[2] for address in page["fetched"] if address.startswith("http")]
    assert hosts == ["cdn.jsdelivr.net"] * 3
    assert page["curves"] == 0
    assert "Charts need .venv/vega.js" in page["text"]
