"""What the docs site needs beside its pages: files outside of docs/ are named, since the site cannot link to them."""

import re

OUTSIDE = re.compile(r"\[(?P<text>[^\]]+)\]\(\.\./(?P<path>[^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by MkDocs with the text of each page."""

    def named(found: re.Match[str]) -> str:
        text, path = found["text"], found["path"]
        return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"

    return OUTSIDE.sub(named, markdown)
