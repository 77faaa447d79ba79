"""What the site needs beyond its configuration: links into the source tree, and a look at what was built.

Pages link to code, as is useful in a checkout. The site has no code, so there such a link is its text alone. A link to
what does not exist ends the build, as any other dead link does.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

UPWARDS = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)")
# What a browser would fetch to show a page; links that one may follow are something else.
FETCHED = re.compile(r"""<(?:script|img|iframe|source|link)[^>]*\s(?:src|href)="?(?:https?:)?//[^"> ]*""")


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Leaves the text of links that lead out of the documentation."""
    docs = Path(config.docs_dir)
    here = docs / Path(page.file.src_uri).parent

    def replace(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = (here / target).resolve()
        if path.is_relative_to(docs):
            return link.group()
        if not path.exists():
            raise PluginError(f"{page.file.src_uri}: there is no {target}")
        return text

    return UPWARDS.sub(replace, markdown)


def on_post_page(output: str, *, page: Page, **_: object) -> str:
    """Refuses pages that need the net to be shown."""
    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} would fetch from the net: {found.group()}")
    return output
