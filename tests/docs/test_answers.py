"""A page that is wrong is told from one that is right."""

from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.answers import answers
from tests.docs.pages import BadPage
from tests.docs.reader import WrongPage, reading


@pytest.mark.parametrize(
    ("shown", "came", "right"),
    [
        ("hi\n", "hi\n", True),
        ("hi\n", "ho\n", False),
        ("hi\n", "hi\nho\n", False),
        ("hi\n", "", False),
        ("until ...: undelete\n", "until tomorrow: undelete\n", True),
        ("until ...: undelete\n", "until : undelete\n", False),
        ("until ...: undelete\n", "until\ntomorrow: undelete\n", False),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\nd\n", "a\nd\n", True),
        ("a\n...\nd\n", "a\nb\nc\n", False),
        ("a.b\n", "a_b\n", False),
    ],
)
def test_text_is_compared_line_by_line(shown: str, came: str, right: bool) -> None:
    assert answers(shown, came, as_json=False) is right


@pytest.mark.parametrize(
    ("shown", "came", "right"),
    [
        ('{"a": 1, "b": [2]}', '{"b":[2],\n"a":1}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": 1}', '{"a": 1, "b": 2}', False),
        ('{"a": 1, "...": "..."}', '{"a": 1, "b": 2}', True),
        ('{"a": 1, "...": "..."}', '{"b": 2}', False),
        ('{"a": "..."}', '{"a": "x"}', True),
        ('{"a": "..."}', "{}", False),
        ('{"a": "x/..."}', '{"a": "x/y"}', True),
        ('{"a": "x/..."}', '{"a": "y"}', False),
        ('["a", "..."]', '["a", "b", "c"]', True),
        ('["a", "..."]', '["b"]', False),
        ('["a"]', '["a", "b"]', False),
        ('{"a": 1} {"b": 2}', '{"a": 1}\n{"b": 2}\n', True),
        ('{"a": 1} {"b": 2}', '{"a": 1}\n', False),
        ('{"a": 1}', "error: no\n", False),
    ],
)
def test_json_is_compared_as_json(shown: str, came: str, right: bool) -> None:
    assert answers(shown, came, as_json=True) is right


def test_the_shell_is_one_from_the_first_step_to_the_last(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\ncd ~ && said() { echo $1; }\n```\n"
        "```console\n$ said one\none\n$ pwd\n/tmp/...\n```\n"
        "```sh\nsaid '{}'\n```\n```json\n{}\n```\n```sh\nfalse || echo no\nfalse | true\n```\n"
        "```sh\necho late &\n```\n```text\nlate\n```\n"
    )
    with reading(suite_runs=False) as reader:
        for step in pages.steps(page):
            reader.type(step)


@pytest.mark.parametrize(
    "block",
    [
        "```console\n$ echo one\ntwo\n```\n",
        "```sh\necho one\n```\n\n```text\ntwo\n```\n",
        "```sh\nfalse\ntrue\n```\n",
        "```sh\nf() { false; }\nf\ntrue\n```\n",
        "```sh\necho $(no-such-program) one\n```\n",
    ],
)
def test_a_step_that_does_not_do_what_the_page_says_fails(tmp_path: Path, block: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(block)
    (step,) = pages.steps(page)
    with reading(suite_runs=False) as reader, pytest.raises(WrongPage):
        reader.type(step)


@pytest.mark.parametrize(
    "text",
    [
        "```\nmake test\n```\n",
        "```bash\nmake test\n```\n",
        "```text\nan answer\n```\n",
        "```sh\nmake test\n```\nSo it is:\n```text\nan answer\n```\n",
        "```sh\nmake test\n",
        "```console\nmake test\n```\n",
    ],
)
def test_no_block_is_passed_over_in_silence(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(BadPage):
        pages.steps(page)


def test_a_block_is_left_out_for_a_reason_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: needs a Docker engine -->\n\n```sh\ndocker ps\n```\n")
    assert pages.steps(page) == []
    (left_out,) = pages.not_run(page)
    assert (left_out.line, left_out.why) == (3, "needs a Docker engine")
