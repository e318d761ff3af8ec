"""A page of HTML read back: its tree, its tables, and the rules that every page of ours keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

# What a shop may call a customer, an item, a campaign or an attribute.
HOSTILE = (
    '"><script>alert(1)</script>', "'onmouseover='alert(1)", "</td></table>", "<b>&amp;", "日本語の商品名" * 20,
    "W" * 400, "{{ 7 * 7 }}", "$x^2$",
)  # fmt: skip
_VOID = {"meta", "img", "br"}
_PHRASING = {"a", "code", "em", "small", "span", "strong", "img"}
_HOLDS_PHRASING = {"p", "h1", "h2", "h3", "summary", "figcaption", "dt", "title", "pre", "code"}
_CHILDREN = {
    "ul": {"li"}, "dl": {"dt", "dd"}, "table": {"thead", "tbody"}, "thead": {"tr"}, "tbody": {"tr"}, "tr": {"th", "td"},
    "html": {"head", "body"}, "head": {"meta", "title", "style"},
}  # fmt: skip


@dataclass
class Tag:
    name: str
    attributes: dict[str, str]
    inside: list[Tag | str] = field(default_factory=list)

    @property
    def tags(self) -> list[Tag]:
        return [child for child in self.inside if isinstance(child, Tag)]

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.inside)

    def all(self, *names: str) -> Iterator[Tag]:
        """Those below it with one of these names, in the order of the page."""
        for child in self.tags:
            if child.name in names:
                yield child
            yield from child.all(*names)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Tag("", {})]

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len({key for key, _ in attributes}) == len(attributes), f"<{name}> has an attribute twice"
        tag = Tag(name, {key: value or "" for key, value in attributes})
        self.open[-1].inside.append(tag)
        if name not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, name: str) -> None:
        assert self.open[-1].name == name, f"</{name}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def tree(page: str) -> Tag:
    """The page's `html`. Fails where a tag is not closed, or another one is."""
    assert page.startswith("<!doctype html>\n")
    reader = _Reader()
    reader.feed(page)
    reader.close()
    (root,) = reader.open
    (html,) = root.tags
    return html


def tables(of: Tag) -> list[list[list[str]]]:
    """Each table's rows of texts, the heads first, without what stands small below a figure."""
    return [
        [["".join(_plain(cell)) for cell in row.tags] for row in table.all("tr")] for table in of.all("table")
    ]  # fmt: skip


def _plain(cell: Tag) -> Iterator[str]:
    for child in cell.inside:
        if isinstance(child, str):
            yield child
        elif child.name != "small":
            yield child.text


def section(of: Tag, title: str) -> Tag:
    """The section under a heading."""
    return next(each for each in of.all("section") if any(head.text == title for head in each.tags))


def sound(page: str) -> Tag:
    """The tree of a page that keeps the rules: valid, readable by ear, with nothing from elsewhere and nothing run."""
    html = tree(page)
    assert html.attributes == {"lang": "en"}
    (title,) = html.all("title")
    assert title.text.strip()
    metas = [tag.attributes for tag in html.all("meta")]
    assert any("width=device-width" in each.get("content", "") for each in metas)
    assert any(each.get("content", "").startswith("default-src 'none'; style-src 'unsafe-inline'") for each in metas)
    levels = [int(tag.name[1]) for tag in html.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels)), levels
    for tag in html.all(*{each.name for each in _everything(html)}):
        _check(tag)
    return html


def _everything(tag: Tag) -> Iterator[Tag]:
    for child in tag.tags:
        yield child
        yield from _everything(child)


def _check(tag: Tag) -> None:
    assert tag.name not in {"script", "link", "iframe", "object", "embed", "base", "form"}, tag
    assert not any(key.startswith("on") for key in tag.attributes), tag
    assert tag.attributes.get("src", "data:image/").startswith("data:image/"), tag
    assert "://" not in tag.attributes.get("href", ""), tag
    if tag.name in _CHILDREN:
        assert {child.name for child in tag.tags} <= _CHILDREN[tag.name], tag
    if tag.name in _HOLDS_PHRASING:
        assert {child.name for child in tag.tags} <= _PHRASING, tag
    if tag.name == "img":
        assert tag.attributes["alt"].strip()
    if tag.attributes.get("class") == "wide":
        assert tag.attributes["aria-label"].strip()
        assert [child.name for child in tag.tags] == ["table"]
    if tag.name == "table":
        _check_table(tag)


def _check_table(table: Tag) -> None:
    """Every cell has a head above and before it."""
    heads, *rows = table.all("tr")
    assert all((cell.name, cell.attributes["scope"]) == ("th", "col") for cell in heads.tags)
    for row in rows:
        first, *others = row.tags
        assert (first.name, first.attributes["scope"]) == ("th", "row")
        assert {cell.name for cell in others} == {"td"}
        assert len(row.tags) == len(heads.tags)
