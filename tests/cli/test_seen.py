"""What was seen of an output before it came is not shown twice."""

from io import BytesIO

import pytest

from cove import Chunk, Preview
from cove.cli.console import Console
from cove.cli.seen import Seen

OUT, ERR = Chunk.STREAM_STDOUT, Chunk.STREAM_STDERR


@pytest.mark.parametrize(
    ("previews", "chunks", "shown", "noted"),
    [
        ([], [b"abc"], b"abc", False),
        ([b"ab", b"c"], [b"a", b"bcd", b"e"], b"abcde", False),
        ([b"abc"], [b"abc"], b"abc", False),
        ([b"abX"], [b"abcd", b"ef"], b"abXcdef", True),
        ([b"abc"], [], b"abc", False),
    ],
)
def test_the_output_goes_on_where_the_preview_ended(
    previews: list[bytes], chunks: list[bytes], shown: bytes, *, noted: bool
) -> None:
    out, error = BytesIO(), BytesIO()
    seen = Seen(Console(out, error))
    parts = [seen.preview(Preview(stream=OUT, data=each)) for each in previews]
    parts += [seen.chunk(Chunk(stream=OUT, data=each)) for each in chunks]
    assert b"".join(parts) == shown
    assert bool(error.getvalue()) == noted


def test_streams_are_apart() -> None:
    seen = Seen(Console(BytesIO(), BytesIO()))
    seen.preview(Preview(stream=OUT, data=b"same"))
    assert seen.chunk(Chunk(stream=ERR, data=b"same")) == b"same"
    assert seen.chunk(Chunk(stream=OUT, data=b"same")) == b""
