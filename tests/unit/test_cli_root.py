from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import batchq.__main__ as border
import batchq.cli
from batchq.cli import cli
from batchq.cli.root import COMMANDS
from batchq.errors import QueueError


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_table_is_there_and_says_what_it_does(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)

    assert command is not None
    assert command.name == name
    assert command.help


def test_a_status_that_is_misspelt_lists_nothing_but_the_right_one() -> None:
    found = CliRunner().invoke(cli, ["list", "words", "--status", "beta", "fnal"])

    assert "did you mean final?" in str(found.exception)


def test_an_error_becomes_its_message_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> int:
        raise QueueError("Redis is away")

    monkeypatch.setattr(cli, "main", fail)

    code = border.main()

    assert code == 6
    assert capsys.readouterr().err == "error: Redis is away\n"


def test_a_fault_of_ours_is_one_line_and_a_file_with_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(**_: object) -> int:
        raise KeyError("lost")

    monkeypatch.setattr(cli, "main", fail)
    monkeypatch.setenv("BATCHQ_HOME", str(tmp_path))

    code = border.main()

    shown = capsys.readouterr().err
    (log,) = tmp_path.glob("fault-*.log")
    assert code == 1
    assert "this is a fault in batchq" in shown
    assert str(log) in shown
    assert "Traceback" not in shown
    assert "Traceback" in log.read_text()


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupt)

    assert border.main() == 130


def test_the_package_exports_what_it_says() -> None:
    assert batchq.cli.__all__ == ["cli"]
