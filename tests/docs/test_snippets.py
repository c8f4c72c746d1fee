"""What README.md shows of other languages is what `make interop` runs."""

import pytest

from scripts import snippets
from scripts.snippets import README, BadSnippet, snippet
from tests.interop.languages import PROGRAMS, ROOT

LANGUAGES = sorted({program.language for program in PROGRAMS})


def test_the_readme_shows_what_the_examples_are() -> None:
    page = README.read_text()
    assert snippets.with_snippets(page) == page, "run scripts/snippets.py"


def test_every_language_is_shown_once() -> None:
    shown = [path.split("/")[:2] for path in snippets.paths(README.read_text())]
    assert sorted(shown) == [["examples", language] for language in LANGUAGES]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_what_the_runner_builds_and_a_reader_reads(language: str) -> None:
    folder = ROOT / "examples" / language
    assert (folder / "build").stat().st_mode & 0o111
    assert "examples/" + language + "/build" in (folder / "README.md").read_text()


def test_a_snippet_is_what_stands_between_the_marks() -> None:
    assert snippet("a\n  # snippet:begin\n  b\n\tc\n    # snippet:end\nd\n", "x") == "b\n  c\n"


@pytest.mark.parametrize(
    "text",
    [
        "a\n",
        "# snippet:begin\na\n",
        "# snippet:end\na\n# snippet:begin\n",
        "# snippet:begin\na\n# snippet:begin\nb\n# snippet:end\n",
        "# snippet:begin\n" + 15 * "a\n" + "# snippet:end\n",
    ],
)
def test_marks_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(BadSnippet):
        snippet(text, "x")
