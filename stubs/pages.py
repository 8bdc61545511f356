"""The mailbox as pages for people: no script, light and dark, narrow screens too."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from stubs.http import Response
from stubs.log import Accepted

# The mails on show are strangers' HTML: they run nothing and fetch nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'; form-action 'self'"
_REPLACES = " · replaces an earlier one"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: light-dark(#555, #aaa); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.25rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
p, dt, time { color: var(--soft); }
ul { list-style: none; padding: 0; margin: 1rem 0; }
li a { display: block; padding: .6rem .2rem; border-top: 1px solid var(--line); color: inherit;
  text-decoration: none; overflow-wrap: anywhere; }
li a:hover, li a:focus-visible { background: #8882; }
li span { display: block; font-size: .875rem; color: var(--soft); }
time { white-space: nowrap; }
form { display: flex; gap: .5rem; flex-wrap: wrap; }
input { flex: 1 1 12rem; font: inherit; padding: .4rem; min-width: 0; }
button { font: inherit; padding: .4rem 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); padding: .75rem; }
iframe { width: 100%; height: 60vh; border: 1px solid var(--line); background: #fff; color-scheme: light; }
"""


def response(page: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
    return Response(200, page.encode(), "text/html; charset=utf-8", headers)


def mailbox(title: str, addressee: str, mails: Sequence[Accepted], to: str, accepted: int) -> str:
    """The newest messages; `to` is the filter in force, on the `addressee`; `accepted` the number of all ever."""
    rows = "".join(
        f'<li><a href="{_address(m.message_id)}">{escape(m.subject) or "(no subject)"}'
        f"<span>{escape(m.to)} · {_when(m)}{_REPLACES if m.replaces else ''}</span></a></li>"
        for m in mails
    )
    an = f"{'an' if addressee[0] in 'aeiou' else 'a'} {addressee}"
    empty = "<p>Nothing here yet. What the stub accepts shows up after a reload.</p>"
    return _page(
        f"{title} stub",
        f"""<h1>{escape(title)} stub: {accepted:,} accepted</h1>
<form><input name="to" value="{escape(to)}" placeholder="part of {an}" aria-label="Part of {an}">
<button>Show</button></form>
{f"<ul>{rows}</ul>" if mails else empty}""",
    )


def mail(title: str, shown: Accepted) -> str:
    """One message with its parts."""
    text = f"<h2>Text</h2><pre>{escape(shown.text)}</pre>" if shown.text else ""
    html = f'<h2>HTML</h2><iframe sandbox title="HTML part" srcdoc="{escape(shown.html)}"></iframe>'
    collapsed = f"<dt>Collapse id</dt><dd>{escape(shown.collapse_id)}</dd>" if shown.collapse_id else ""
    if shown.replaces:
        collapsed += f'<dt>Replaces</dt><dd><a href="{_address(shown.replaces)}">{escape(shown.replaces)}</a></dd>'
    return _page(
        shown.subject,
        f"""<p><a href="/">{escape(title)} stub</a></p><h1>{escape(shown.subject) or "(no subject)"}</h1>
<dl><dt>To</dt><dd>{escape(shown.to)}</dd><dt>Accepted</dt><dd>{_when(shown)}</dd>
<dt>Delivery</dt><dd>{escape(shown.delivery)}</dd><dt>Id</dt><dd>{escape(shown.message_id)}</dd>{collapsed}</dl>
{text}{html if shown.html else ""}""",
    )


def _when(message: Accepted) -> str:
    day, _, instant = message.at.partition("T")
    return f'<time datetime="{escape(message.at)}">{escape(day)} {escape(instant[:8])} UTC</time>'


def _address(message_id: str) -> str:
    return f"/mail/{quote(message_id, safe='')}"


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{body}</body></html>"
    )
