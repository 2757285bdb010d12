"""Hooks of the site: pages that lie beside docs/, and links that lead out of it."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
BESIDE = {name: f"{name.removesuffix('.md').lower()}.md" for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")}
"""File beside docs/ -> its page of the site."""
LINK = re.compile(r"\[([^]]*)\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose files lie beside docs/, where GitHub expects them."""
    for name, page in BESIDE.items():
        if (ROOT / name).is_file():
            files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files that are pages lead to them; of a link to any other file, keep the text."""
    folder = ROOT if page.file.src_uri in BESIDE.values() else ROOT / "docs"

    def replaced(link: re.Match[str]) -> str:
        text, target, anchor = link[1], (folder / link[2]).resolve(), link[3] or ""
        if target == ROOT / "README.md":
            return f"[{text}](index.md)"
        if target.parent == ROOT and target.name in BESIDE:
            return f"[{text}]({BESIDE[target.name]}{anchor})"
        if target.is_relative_to(ROOT / "docs"):
            return f"[{text}]({target.relative_to(ROOT / 'docs').as_posix()}{anchor})"
        return text if target.exists() else link[0]

    return LINK.sub(replaced, markdown)
