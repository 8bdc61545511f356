"""What providers of e-mail share: which addresses can be written to, and what Amazon says in words alone."""

import re

from delivery.providers.base import Message, Verdict
from schedules.content import CONTROL

# What would make two addresses of one, or a name with an address.
_SEVERAL = re.compile(r"[\s,;:<>()\[\]\\\"]|@.*@")


def flaw(message: Message) -> str | None:
    """Why no server would ever take this message; a flawed one could cost all the others of its call."""
    local, at, domain = message.to.rpartition("@")
    if CONTROL.search(message.to) or CONTROL.search(message.subject):
        return "line_break_in_header"
    if not (local and at and domain) or _SEVERAL.search(message.to):
        return "no_address"
    if not local.isascii() or ascii_domain(message.to) == "":
        return "address_not_ascii"
    return None


def headers(message: Message) -> dict[str, str]:
    """Those of the message's own beside its subject."""
    return one_click(message.unsubscribe_url)


def one_click(url: str) -> dict[str, str]:
    """What programs that show mail read to offer a button that unsubscribes: RFC 2369 (3.2) and RFC 8058 (3.1).

    DKIM has to sign both (RFC 8058, 4), which is the business of whoever signs. None without a ``url``.
    """
    return {"List-Unsubscribe": f"<{url}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"} if url else {}


def ascii_domain(address: str) -> str:
    """The address as servers take it, its domain in Punycode (RFC 3492); empty where that can't be."""
    if address.isascii():
        return address
    local, _, domain = address.rpartition("@")
    try:
        return f"{local}@{domain.encode('idna').decode('ascii')}"
    except UnicodeError:
        return ""


def by_amazons_words(words: str) -> tuple[Verdict, str] | None:
    """Conditions of the account or of this host that are reported under names that mean something else too.

    An unverified sender comes as "rejected", the daily quota as throttling ("Errors related to the sending quotas" in
    the developer guide of SES), a wrong clock as a wrong signature.
    """
    if "is not verified" in words:
        return Verdict.MISCONFIGURED, "identity_not_verified"
    if "Daily" in words and "quota" in words:
        return Verdict.MISCONFIGURED, "daily_quota"
    if "Signature expired" in words or "Signature not yet current" in words:
        return Verdict.MISCONFIGURED, "clock_skew"
    return None
