"""A hook of mkdocs: links to files outside of docs/ become their paths, as the site lacks them."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[[^\]]*\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return OUTSIDE.sub(r"`\1`", markdown)
