"""A hook of MkDocs: pages that lie beside docs/, where GitHub shows them, are on the site too."""

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parent.parent

_OUTSIDE: Final = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "examples/README.md": "examples.md",
    "sdk/README.md": "sdk.md",
}
"""Where they are on the site, by their path in the repository."""

_INSIDE: Final = {uri: path for path, uri in _OUTSIDE.items()}
_LINK: Final = re.compile(r"\]\((?P<target>[^)#\s:]+\.md)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for path, uri in _OUTSIDE.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between pages, which are written for the repository, made those of the site."""
    uri = page.file.src_uri
    here = posixpath.dirname(_INSIDE.get(uri, f"docs/{uri}"))

    def moved(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, link["target"]))
        target = _on_site(path)
        if target is None:
            return link[0]
        target = posixpath.relpath(target, posixpath.dirname(uri) or ".")
        return f"]({target}{link['anchor'] or ''})"

    return _LINK.sub(moved, markdown)


def _on_site(path: str) -> str | None:
    if path == "README.md":
        return "index.md"
    return _OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
