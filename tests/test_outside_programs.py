"""What tests went without is said at the end of a run, in one line."""

import pytest

import outside_programs


def test_what_is_lacking_is_said_once(monkeypatch):
    monkeypatch.setattr(outside_programs, "LACKING", {})
    assert outside_programs.summary() is None
    for program, advice in (("exiv2", "apt-get install exiv2"), ("chromium", "x"), ("exiv2", "apt-get install exiv2")):
        with pytest.raises(pytest.skip.Exception, match=f"needs {program}: {advice}"):
            outside_programs.go_without(program, advice)
    assert outside_programs.summary() == (
        "Not asked, because they are not here: chromium (x); exiv2 (apt-get install exiv2)."
    )
