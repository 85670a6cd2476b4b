"""Global mapping files: planted rules, and sctk's own filter on drawn texts."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr.errors import InputError
from asr.score.glm import Glm

CSRFILT = Path("/usr/lib/sctk/bin/csrfilt.sh")
HEAD = ";; a comment\n* name = 'en'\n* case_sensitive = 'F'\n"
RULES = """
GONNA => GOING TO / [ ] __ [ ]   ;; comment
[CAN'T] => [{CANNOT / CAN NOT / CAN'T}] / [ ] __ [ ]
[UH] => [(%HESITATION)] / [ ] __ [ ]
UH-HUH => %BCACK / [ ] __ [ ]
COLOUR => COLOR
NEW YORK => NEW_YORK
NEW => NOVEL
Falkner => Faulkner / [WILLIAM ] __
[ A.M.] => [ A M]
X => Y / A __B C
"""
WORDS = """gonna GONNA can't uh uh-huh colour colours new york newyork (uh) (the) falkner william
a.m. axb x the well-known""".split()


@pytest.fixture
def rewrite(tmp_path):
    def made(text, content=HEAD + RULES, side="ref", format="trn"):
        path = tmp_path / "x.glm"
        path.write_text(content)
        return Glm(path).rules(format, side)(text)

    return made


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("I'm gonna see gonnas", "I'M GOING TO SEE GONNAS"),
        ("gonna gonna", "GOING TO GOING TO"),
        ("can't", "{CANNOT / CAN NOT / CAN'T}"),
        ("new york new", "NEW_YORK NOVEL"),
        ("william falkner falkner", "WILLIAM Faulkner FALKNER"),
        ("9 a.m. colours", "9 A M COLORS"),
        ("(new new)", "(NOVEL) (NOVEL)"),
        ("", ""),
    ],
)
def test_planted_rules(rewrite, text, made):
    assert rewrite(text) == made


def test_the_first_rule_in_the_file_counts_and_the_text_as_it_was(rewrite):
    assert rewrite("ab", HEAD + "A => B\nAB => X\nB => C\n") == "BC"
    assert rewrite("ab", HEAD + "AB => X\nA => B\n") == "X"
    assert rewrite("aab", HEAD + "A => B / B __\n") == "AAB"


def test_settings(rewrite):
    assert rewrite("ab", ";;\n* copy_no_hit = 'F'\nA => B\n") == "B"
    assert rewrite("a b", ";;\na => B\nB => c\n") == "A c"
    assert rewrite("ab", "# other comments\nA => ;; # as that says\n") == ";;B"


def test_parts_are_for_one_side_or_format(rewrite):
    content = HEAD + 'A => B\n;; INPUT_DEPENDENT_APPLICATION = "hyp|ctm"\nC => D\n'
    assert rewrite("a c", content) == "B C"
    assert rewrite("a c", content, side="hyp") == "B D"
    assert rewrite("a c", content, format="ctm") == "B D"


def test_slashes_that_begin_no_context(rewrite):
    assert rewrite("it's", HEAD + "[IT'S] => {IT'S / IT IS}\n") == "{IT'S / IT IS}"
    assert rewrite("it's", HEAD + "[IT'S] => [{IT'S / IT IS}\n") == "{IT'S / IT IS}"
    assert rewrite("and/or", HEAD + "AND/OR => AND OR\n") == "AND OR"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("A B", "x.glm:4: expected 'A => B' or"),
        ("=> B", "x.glm:4: expected 'A => B' or"),
        ("A => B / C", "x.glm:4: expected 'A => B' or"),
        ("* name = x", "x.glm:4: expected a value in quotes"),
        ("* format = 'NIST3'", "x.glm:4: expected format NIST1"),
        (';; INPUT_DEPENDENT_APPLICATION = "("', "x.glm:4: '(' is no pattern"),
    ],
)
def test_what_is_no_rule_is_refused(rewrite, line, told):
    with pytest.raises(InputError) as error:
        rewrite("a", HEAD + line + "\n")
    assert told in str(error.value)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.text("=>/[]_*'; AB\n\"()", max_size=60), st.text("AB ()"))
def test_any_file_is_read_or_refused(tmp_path_factory, content, text):
    path = tmp_path_factory.mktemp("glm") / "any.glm"
    path.write_text(";;\n" + content)
    with contextlib.suppress(InputError):
        Glm(path).rules("trn", "ref")(text)


@pytest.mark.skipif(not (CSRFILT.exists() and shutil.which("perl")), reason="sctk is not installed")
@settings(deadline=None, max_examples=5)
@given(st.lists(st.lists(st.sampled_from(WORDS)).map(" ".join), min_size=50, max_size=50))
def test_csrfilt_makes_the_same(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("glm")
    path = folder / "x.glm"
    path.write_text(HEAD + RULES)
    lines = "".join(f"{text} (a-{i})\n" for i, text in enumerate(texts))
    theirs = subprocess.run(
        [CSRFILT, "-i", "trn", "-t", "ref", path],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"/usr/bin:/bin:{CSRFILT.parent}"},
    ).stdout.splitlines()
    ours = Glm(path).rules("trn", "ref")
    assert [" ".join(line.rpartition("(")[0].split()) for line in theirs] == list(map(ours, texts))
