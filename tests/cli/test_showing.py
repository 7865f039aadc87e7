"""The answer goes to standard output and nothing else does."""

from __future__ import annotations

import pytest

from oanim.cli.showing import Answer, clean, show, table


@pytest.mark.parametrize(("as_json", "out"), [(False, "one\ntwo\n"), (True, '{"word": "\\u00e9"}\n')])
def test_notes_never_mix_with_the_answer(
    as_json: bool,  # noqa: FBT001
    out: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(Answer(data={"word": "é"}, lines=["one", "two"], notes=["mind this"]), as_json=as_json)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (out, "oanim: mind this\n")


def test_nothing_that_steers_a_terminal_gets_through() -> None:
    assert clean("a\x1b[31mb\x07\x9bc\u202ed\ne") == "a?[31mb??c?d\ne"


def test_json_has_no_character_that_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show(Answer(data={"name": "a\x1b\x9b31m\u202eb"}, lines=[]), as_json=True)
    assert capsys.readouterr().out == '{"name": "a\\u001b\\u009b31m\\u202eb"}\n'


def test_columns_line_up() -> None:
    assert table(("Model", "Cost"), [("a", "$0.003"), ("longer", "$5.00")], right=(1,)) == [
        "Model     Cost",
        "a       $0.003",
        "longer   $5.00",
    ]
