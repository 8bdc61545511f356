"""What the documents point at exists, and every page has its place."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from deploy.site import navigation
from deploy.site.built import problems
from deploy.site.reference import Reference
from frontend.wording.reasons import OF_RUNS, REASONS
from tests.documents import DOCUMENTS, ROOT, anchors, name, targets

FIRST = ROOT / "docs" / "README.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_and_every_named_file_exists(document: Path) -> None:
    gone = []
    for target in targets(document):
        parts = urlsplit(target)
        to = document if not parts.path else (document.parent / unquote(parts.path)).resolve()
        if parts.scheme or parts.netloc:
            continue
        if not to.is_file() or (parts.fragment and to.suffix == ".md" and parts.fragment not in anchors(to)):
            gone.append(target)
    named = re.findall(
        r"`((?:tests|docs|schedules|delivery|frontend|stubs|deploy)/[\w./-]+\.\w+)`", document.read_text()
    )
    assert gone + [each for each in named if not (ROOT / each).exists()] == []


def test_every_picture_is_shown() -> None:
    shown = {(document.parent / target).resolve() for document in DOCUMENTS for target in targets(document)}
    pictures = [*ROOT.glob("docs/screenshots/*"), *ROOT.glob("docs/pictures/*")]
    assert [name(path) for path in pictures if path not in shown] == []


def test_a_link_to_a_heading_that_is_not_there_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n\n## `a` thing, twice\n\n## `a` thing, twice\n\n[there](#one) [gone](#two) ![](p.png)\n")
    assert anchors(page) == {"one", "a-thing-twice", "a-thing-twice-1"}
    assert list(targets(page)) == ["#one", "#two", "p.png"]


def test_every_page_has_its_place_on_the_first_one() -> None:
    """Pages of a folder with a README hang below it, and the site's build says the same of each by its warning."""
    led_to = {(FIRST.parent / link.target).resolve() for link in navigation.links(FIRST.read_text()) if link.in_list}
    below = {path.parent for path in led_to if path.name == "README.md" and path.parent != ROOT}
    lost = [name(path) for path in DOCUMENTS if path not in led_to | {FIRST} and path.parent not in below]
    assert lost == []


def test_the_first_page_is_the_navigation_and_a_folders_readme_that_of_its_folder() -> None:
    list_of = "- [What](../README.md): it is\n- [Else](https://example.com)\n- [Up](adr/a.md)\n"
    text = f"# All\n\n[no](no.md)\n\n## Start\n\n{list_of}"
    made = navigation.first_page(text, folder=FIRST.parent.relative_to(ROOT))
    assert re.findall(r"^:caption: (.*)$|^(.+ <.*>)$", made, re.MULTILINE) == [
        ("Start", ""),
        ("", "What </README>"),
        ("", "Up </docs/adr/a>"),
    ]
    made = navigation.folder_page("[b](b.md#x) [else](../a.md)", folder=Path("docs/x"), pages=["a", "b", "c"])
    assert re.findall(r"^/.*$", made, re.MULTILINE) == ["/docs/x/b", "/docs/x/a", "/docs/x/c"]


def test_the_analysts_guide_has_every_reason_in_the_words_of_the_pages() -> None:
    guide = (FIRST.parent / "analysts.md").read_text()
    lacking = [slug for slug, words in {**REASONS, **OF_RUNS}.items() if f"| `{slug}` | {words} |" not in guide]
    assert lacking == []
    told = set(re.findall(r"^\| `([a-z_]+)` \|", guide.partition("## Every reason")[2], re.MULTILINE))
    assert told == {*REASONS, *OF_RUNS}


def test_an_operation_is_told_with_all_that_it_takes_and_answers() -> None:
    document = {
        "paths": {
            "/people/{id}": {
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
                "get": {
                    "operationId": "readPerson",
                    "description": "One <person>.",
                    "tags": ["people"],
                    "security": [{"oauth2": ["read"]}],
                    "responses": {
                        "200": {
                            "description": "a | b",
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Person"}}},
                        },
                        "404": {"$ref": "#/components/responses/Gone"},
                    },
                },
            }
        },
        "webhooks": {"person.gone": {"post": {"summary": "Gone.", "tags": ["people"], "responses": {"204": {}}}}},
        "components": {
            "responses": {"Gone": {"description": "Nobody."}},
            "schemas": {
                "Person": {
                    "required": ["tags"],
                    "properties": {"tags": {"type": "array", "items": {"enum": ["a", ""]}}, "more": True},
                }
            },
        },
    }
    text = Reference(document, prefix="api").text()
    for line in (
        "## People",
        "### Read person",
        "`GET /people/{id}`",
        "One &lt;person>.",
        "Scope: `read`",
        "| `id` | path | string | **required** |",
        "| 200 | a \\| b | [Person](#api-person) as `application/json` |",
        "Errors: 404 Nobody.",
        "## Webhooks",
        "### Gone.",
        "`POST person.gone`",
        "| 204 |  |  |",
        "(api-person)=",
        "| `tags` | array of `a`, `(empty)` | **required** |",
        "| `more` | anything |  |",
    ):
        assert line in text.splitlines(), line


def test_a_built_page_that_leads_nowhere_or_loads_from_elsewhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here">ok</a><a href="b.html#there">no</a><a href="https://example.com">ok</a>'
        '<a href="c.html">no</a><img src="https://example.com/pixel.png"><script src="b.js"></script></p>'
    )
    (tmp_path / "b.html").write_text("<p>b</p>")
    assert problems(tmp_path) == [
        "a.html: b.html#there: there is no such place on that page",
        "a.html: b.js leads nowhere",
        "a.html: c.html leads nowhere",
        "a.html: loads https://example.com/pixel.png, which is not of this site",
    ]
