"""Every command, argument and option says what it is for."""

import sys

import pytest
from typer.main import get_command

from amst import cli


def without_a_word(command, name):
    """Names of the commands and parameters from here on that have no help."""
    if not command.help:
        yield name
    yield from (f"{name} {each.opts[0]}" for each in command.params if not each.help)
    for below, each in getattr(command, "commands", {}).items():
        yield from without_a_word(each, f"{name} {below}")


def test_everything_has_a_word_of_help():
    assert list(without_a_word(get_command(cli.app), "amst")) == []


def test_a_terminal_that_says_it_has_no_columns_shows_something(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setattr(sys, "argv", ["amst", "status", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "failed" in capsys.readouterr().out
