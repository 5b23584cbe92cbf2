"""Tests that every command gets its arguments and that every mistake is one line."""

import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any
from unittest.mock import Mock, create_autospec

import pytest
import torch

from deeplab_bench.command_line import TOOLS, run
from deeplab_bench.errors import UserError
from pipelines import audit, evaluate
from pipelines.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [*STAGES, *TOOLS]


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Replace the stage ``audit`` by a mock with the same arguments."""
    main = create_autospec(audit.main, return_value=None)
    monkeypatch.setattr(audit, "main", main)
    return main


def options(
    *profiles: Annotated[str, "the profiles"],
    jobs: Annotated[int, "how many"] = 1,
    limit: Annotated[float, "how long"] = 0.5,
    device: str = "",
    seeds: Annotated[int | None, "how many seeds"] = None,
    all: Annotated[bool, "everything"] = False,
) -> int | None:
    """Take arguments of every kind."""


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """Run ``repro`` with the arguments of ``options`` and return those it was called with."""
    main = create_autospec(options, return_value=None)
    monkeypatch.setitem(sys.modules, "pipelines.repro", SimpleNamespace(main=main))
    assert run(["repro", *arguments]) == 0
    (called,) = main.call_args_list
    return {"profiles": called.args, **called.kwargs}


class TestDispatch:
    def test_a_stage_gets_typed_arguments(self, audited: Mock) -> None:
        assert run(["audit", "toy", "plain", "3"]) == 0
        audited.assert_called_once_with("toy", "plain", 3)

    def test_arguments_keep_their_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        main = create_autospec(evaluate.main, return_value=None)
        monkeypatch.setattr(evaluate, "main", main)
        assert run(["evaluate", "toy", "os8", "plain", "0"]) == 0
        main.assert_called_once_with(profile="toy", inference="os8", model="plain", seed=0)

    def test_defaults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert call(monkeypatch) == {
            "profiles": (),
            "jobs": 1,
            "limit": 0.5,
            "device": "",
            "seeds": None,
            "all": False,
        }

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--jobs", "3"], {"jobs": 3}),
            (["--jobs=3"], {"jobs": 3}),
            (["--limit", "7"], {"limit": 7.0}),
            (["--device", "h100"], {"device": "h100"}),
            (["--seeds", "0"], {"seeds": 0}),
            (["--all"], {"all": True}),
            (["toy", "quick"], {"profiles": ("toy", "quick")}),
            (["toy", "--all", "--jobs", "2"], {"profiles": ("toy",), "all": True, "jobs": 2}),
        ],
    )
    def test_options(
        self, arguments: list[str], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = call(monkeypatch, *arguments)
        assert found == call(monkeypatch) | expected
        assert isinstance(found["limit"], float)

    @pytest.mark.parametrize("status", [0, 3])
    def test_the_status_is_the_command_s(self, status: int, audited: Mock) -> None:
        audited.return_value = status
        assert run(["audit", "toy", "plain", "0"]) == status


class TestMistakes:
    def exits(self, capsys: pytest.CaptureFixture[str], *command: str) -> str:
        """Return what a command prints that ends with the status 2."""
        with pytest.raises(SystemExit) as caught:
            run(command)
        assert caught.value.code == 2
        out, err = capsys.readouterr()
        assert not out
        return err

    def test_unknown_command_names_the_choices(self, capsys: pytest.CaptureFixture[str]) -> None:
        message = self.exits(capsys, "trian")
        assert "invalid choice: 'trian'" in message
        for command in COMMANDS:
            assert command in message.splitlines()[-1]

    def test_no_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "required: COMMAND" in self.exits(capsys)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["toy", "plain", "x"], "argument seed: invalid int value: 'x'"),
            (["toy", "plain"], "the following arguments are required: seed"),
            (["toy", "plain", "0", "1"], "unrecognized arguments: 1"),
            (["toy", "plain", "0", "--all"], "unrecognized arguments: --all"),
        ],
    )
    def test_wrong_arguments(
        self,
        arguments: list[str],
        message: str,
        audited: Mock,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert message in self.exits(capsys, "audit", *arguments)
        audited.assert_not_called()

    def test_an_option_without_default_is_required(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        message = self.exits(capsys, "score", "--profile", "toy")
        assert "the following arguments are required: --predictions" in message

    def test_a_user_s_error_is_one_line(
        self, audited: Mock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        audited.side_effect = UserError("x.json is missing: run `dvc repro`")
        assert run(["audit", "toy", "plain", "0"]) == 1
        assert capsys.readouterr() == ("", "error: x.json is missing: run `dvc repro`\n")

    def test_any_other_error_is_not_hidden(self, audited: Mock) -> None:
        audited.side_effect = ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            run(["audit", "toy", "plain", "0"])

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (OSError(28, "", "a.pt"), "a.pt: No space left on device; make room on the disk"),
            (OSError(27, ""), "File too large; allow larger files"),
            (OSError(30, "", "logs"), "logs: Read-only file system; run in a folder"),
            (PermissionError(13, "", "data"), "data: Permission denied; allow to read and write"),
            (MemoryError(), "out of memory; lower training.batch_size"),
            (torch.OutOfMemoryError("CUDA out of memory."), "out of memory; lower training"),
        ],
    )
    def test_an_error_of_the_machine_is_one_line(
        self,
        error: Exception,
        said: str,
        audited: Mock,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        audited.side_effect = error
        assert run(["audit", "toy", "plain", "0"]) == 1
        out, text = capsys.readouterr()
        assert out == "" and text.startswith(f"error: {said}") and text.count("\n") == 1
        monkeypatch.setenv("DEEPLAB_BENCH_TRACEBACK", "1")
        with pytest.raises(type(error)):
            run(["audit", "toy", "plain", "0"])

    def test_torch_without_memory_is_one_line(
        self, audited: Mock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        audited.side_effect = lambda **_: torch.empty(1 << 58)
        assert run(["audit", "toy", "plain", "0"]) == 1
        assert capsys.readouterr().err.startswith("error: out of memory; ")

    def test_a_missing_file_is_a_mistake_of_ours(self, audited: Mock) -> None:
        audited.side_effect = FileNotFoundError(2, "", "x")
        with pytest.raises(FileNotFoundError):
            run(["audit", "toy", "plain", "0"])

    def test_an_interrupt_is_no_traceback(
        self, audited: Mock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        audited.side_effect = KeyboardInterrupt
        assert run(["audit", "toy", "plain", "0"]) == 130
        assert capsys.readouterr() == ("", "")


class TestHelp:
    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            run(["--version"])
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"deeplab-bench {version('deeplab-bench')}\n"

    def test_lists_every_command_and_does_not_import_torch(self) -> None:
        code = (
            "import sys\n"
            "sys.argv = ['deeplab-bench', '--help']\n"
            "from deeplab_bench.__main__ import main\n"
            "try:\n"
            "    main()\n"
            "finally:\n"
            "    assert 'torch' not in sys.modules\n"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip()]
        helps = {name: stage.help for name, stage in STAGES.items()} | TOOLS
        explained = {words[0] for words in lines}
        assert explained >= set(helps)
        text = " ".join(done.stdout.split())
        for help in helps.values():
            assert help in text

    def test_explains_a_command(self, audited: Mock, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            run(["audit", "--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert "Rescore a checkpoint with the scoring variants of published code." in text
        for parameter in inspect.signature(audit.main).parameters:
            assert parameter in text
        audited.assert_not_called()

    def test_explains_options(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "pipelines.repro", SimpleNamespace(main=options))
        with pytest.raises(SystemExit):
            run(["repro", "--help"])
        text = " ".join(capsys.readouterr().out.split())
        for help in ("the profiles", "--jobs X how many", "--all everything"):
            assert help in text
