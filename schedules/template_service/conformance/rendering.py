"""What does it write? Each message from what was sent for it, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from schedules.content import CHANNELS, CONTROL, MAX_PUSH, MAX_SOURCE
from schedules.remote.checking import Check, Failed, Skipped
from schedules.template_service.client import MAX_ITEMS, Item
from schedules.template_service.conformance.listing import NOBODYS
from schedules.template_service.conformance.subject import VALUE, Spoken, Subject, asking, attributes, item
from schedules.template_service.reading import ItemError, Message

MAX_PART: Final = 512 * 1024  # bytes
_MARKED: Final = f"{VALUE}<i>&"
_BROKEN_LINE: Final = f"{VALUE}\r\nBcc: somebody@example.com"
_YEARS_END: Final = "2026-12-31T23:30:00Z"  # so that year, month, day and hour differ between these two
_ZONES: Final = ("Pacific/Kiritimati", "Pacific/Pago_Pago")
_FOREIGN: Final = "tlh"
_REGION: Final = "AQ"


def _message(subject: Subject) -> str:
    said = subject.contents()
    if not said:
        raise Skipped("no template says anything")
    results = [subject.message(spoken, item(spoken)) for spoken in said]
    written = [each for each in results if isinstance(each, Message)]
    if not written:
        words = "; ".join(sorted({f"{each.code}: {each.detail}" for each in results if isinstance(each, ItemError)}))
        raise Failed(f"none of {len(results)} contents gives a message: {words}")
    return f"messages of {len(written)} of {len(results)} contents"


def _parts(subject: Subject) -> str:
    for spoken in subject.speaking():
        made = _made(subject, spoken, item(spoken))
        has_body = bool(made.text or made.html)
        if spoken.channel == "email" and not (made.subject and has_body):
            raise Failed(f"an e-mail of {spoken.template.id} without {'text or html' if made.subject else 'subject'}")
        if spoken.channel != "email" and made.html:
            raise Failed(f"html for {spoken.channel} of {spoken.template.id}")
        if len(made.subject) > MAX_SOURCE["subject"]:
            raise Failed(f"a subject of {len(made.subject):,} characters")
        if (longest := max(len(part.encode(errors="replace")) for part in (made.text, made.html))) > MAX_PART:
            raise Failed(f"a part of {longest:,} bytes")
        size = len(f"{made.subject}{made.text}".encode(errors="replace"))
        if spoken.channel == "push" and size > MAX_PUSH:
            raise Failed(f"a push notification of {size:,} bytes")
    return "the parts that each channel has"


def _tokens(subject: Subject) -> str:
    reading = [spoken for spoken in subject.speaking() if attributes(spoken.template)]
    if not reading:
        raise Skipped("no template reads an attribute")
    for spoken in reading:
        if subject.message(spoken, item(spoken, "Aardvark")) != subject.message(spoken, item(spoken)):
            return "what is sent is read"
    raise Failed(f"the same from other values, whichever of {len(reading)} contents was asked for")


def _html(subject: Subject) -> str:
    shown = _showing(subject, lambda made: made.html)
    if any(_MARKED in text for text in shown):
        raise Failed("a value of <i> stands in the html as it was sent")
    return f"escaped in {len(shown)}"


def _plain(subject: Subject) -> str:
    shown = _showing(subject, lambda made: f"{made.subject}\n{made.text}")
    if any(f"{VALUE}&" in text for text in shown):
        raise Failed("a value of <i> is escaped in subject or text")
    return f"as sent in {len(shown)}"


def _subject_line(subject: Subject) -> str:
    for spoken in subject.speaking():
        made = subject.message(spoken, item(spoken, _BROKEN_LINE))
        if isinstance(made, Message) and CONTROL.search(made.subject):
            raise Failed("a subject with a line break, from a value that had one")
    return "no line break in a subject"


def _locales(subject: Subject) -> str:
    said = subject.speaking()
    for spoken in said:
        _expect_locale(subject, spoken, asked=spoken.locale, wanted=spoken.locale)
    return f"{len(said)} contents"


def _fallback(subject: Subject) -> str:
    asked = 0
    for spoken in subject.speaking():
        own = {locale for channel, locale in spoken.template.contents if channel == spoken.channel}
        tries = [f"{spoken.locale}-{_REGION}"] if spoken.locale.isalpha() else []
        tries += ["", _FOREIGN] if spoken.locale == spoken.template.default_locale else []
        for locale in tries:
            if locale not in own:
                _expect_locale(subject, spoken, asked=locale, wanted=spoken.locale)
                asked += 1
    if not asked:
        raise Skipped("no content is one to fall back to")
    return f"{asked} locales that have no content"


def _again(subject: Subject) -> str:
    for spoken in subject.speaking():
        one = item(spoken)
        if len({*subject.render(spoken.template, spoken.channel, [one, one]), subject.message(spoken, one)}) > 1:
            raise Failed(f"different messages of {spoken.template.id} from equal items")
    return "equal messages from equal items"


def _order(subject: Subject) -> str:
    is_told = False
    for spoken in subject.speaking():
        items = _different(spoken)
        alone = [subject.message(spoken, each) for each in items]
        is_told = is_told or len(set(alone)) > 1
        for asked, wanted in ((items, alone), (items[::-1], alone[::-1])):
            if subject.render(spoken.template, spoken.channel, asked) != wanted:
                raise Failed(f"other messages of {spoken.template.id} than those of the same items one by one")
    if not is_told:
        raise Skipped("all messages are equal")
    return "each result at the place of its item"


def _missing(subject: Subject) -> str:
    for spoken in subject.speaking():
        whole = item(spoken)
        bare = whole._replace(tokens={})
        found = subject.render(spoken.template, spoken.channel, [bare, whole])
        if found[1] != subject.message(spoken, whole):
            raise Failed("another message beside an item without tokens")
    return "a message or an error for itself"


def _no_content(subject: Subject) -> str:
    for template in subject.sample():
        for channel in CHANNELS:
            if channel not in {spoken for spoken, _ in template.contents}:
                (found,) = subject.render(template, channel, [item(Spoken(template, channel, template.default_locale))])
                if not isinstance(found, ItemError) or found.code != "no_content":
                    came = f"the error {found.code}" if isinstance(found, ItemError) else "a message"
                    raise Failed(f"{came} for {channel}, in which {template.id} says nothing")
                return "the error no_content"
    raise Skipped("every template that was sampled speaks in every channel")


def _unknown_version(subject: Subject) -> str:
    for spoken in subject.speaking()[:1]:
        said = asking(spoken.template, spoken.channel, [item(spoken)])
        _expect_gone(subject, {**said, "version": "a-version-that-never-was"})
    return "410"


def _unknown_template(subject: Subject) -> str:
    for spoken in subject.speaking()[:1]:
        said = asking(spoken.template, spoken.channel, [item(spoken)])
        _expect_gone(subject, {**said, "template": NOBODYS})
    return "410"


def _time_zone(subject: Subject) -> str:
    reading = [spoken for spoken in subject.speaking() if "occurrence.at" in spoken.template.tokens]
    if not reading:
        raise Skipped("no template reads occurrence.at")
    for spoken in reading:
        east, west = (subject.message(spoken, item(spoken, time_zone=zone, at=_YEARS_END)) for zone in _ZONES)
        if east != west:
            return "each reader's own clock"
    raise Failed(f"the same time in {_ZONES[0]} as in {_ZONES[1]}")


def _full_call(subject: Subject) -> str:
    spoken = subject.speaking()[0]
    items = [item(spoken, f"{VALUE}-{number}") for number in range(MAX_ITEMS)]
    found = subject.render(spoken.template, spoken.channel, items)
    return f"{len(found):,} results"


def _made(subject: Subject, spoken: Spoken, asked: Item) -> Message:
    """Raises ``Failed`` where it is none, though it was one before."""
    made = subject.message(spoken, asked)
    if isinstance(made, Message):
        return made
    raise Failed(f"the error {made.code} for {spoken.channel} of {spoken.template.id}: {made.detail}")


def _showing(subject: Subject, part: Callable[[Message], str]) -> list[str]:
    """That part of the messages in which a value of mark-up can be seen. Raises ``Skipped`` where there is none."""
    texts = []
    for spoken in subject.speaking():
        made = subject.message(spoken, item(spoken, _MARKED))
        if isinstance(made, Message) and VALUE in part(made):
            texts.append(part(made))
    if not texts:
        raise Skipped("no message shows a value there")
    return texts


def _expect_locale(subject: Subject, spoken: Spoken, *, asked: str, wanted: str) -> None:
    found = _made(subject, spoken, item(spoken, locale=asked)).locale
    if found != wanted:
        told = f"{spoken.channel} of {spoken.template.id} for the locale {asked or 'of nobody'}"
        raise Failed(f"{told} comes from the content in {found or 'no locale'}, not from the one in {wanted}")


def _different(spoken: Spoken) -> list[Item]:
    """Items that have other values, and other locales where there are any."""
    locales = [locale for channel, locale in spoken.template.contents if channel == spoken.channel][:3]
    return [item(spoken, f"{VALUE}-{number}", locale=locale) for locale in locales for number in range(2)]


def _expect_gone(subject: Subject, said: dict[str, object]) -> None:
    answer = subject.post_render(said)
    if answer.status != 410:
        raise Failed(f"{answer.status}")


CHECKS: Final = (
    Check(
        "message",
        'POST /render answers 200 with {"results": [...]}: for each item a message, with its parts and the locale of '
        "its content, or an error with a code.",
        "Answer a JSON object with the member results, as many as there were items. Attributes are tried with a word, "
        f"{VALUE}: let a token that wants a number or a date do without.",
        _message,
        ("list",),
    ),
    Check(
        "parts",
        "E-mail has a subject, and text or html; push and in-app have no html; a subject has at most 998 characters, a "
        "part 512 KiB, a push notification 4 KiB in all.",
        "Send null or leave out what a channel hasn't.",
        _parts,
        ("message",),
    ),
    Check(
        "tokens",
        "A message says what its tokens hold; they stand under the names that the template declares, dots included.",
        'Read tokens by their whole names, such as tokens["recipient.attributes.plan"], and not nested.',
        _tokens,
        ("message",),
    ),
    Check(
        "html",
        "A value is escaped where it stands in html.",
        "Let the engine escape: whoever may write a profile could otherwise write the message.",
        _html,
        ("tokens",),
    ),
    Check(
        "plain",
        "A value stands in subject and text as it was sent.",
        "Escape in html alone: nobody is called O&#39;Brien.",
        _plain,
        ("tokens",),
    ),
    Check(
        "subject_line",
        "A subject is one line, whatever the values are; else the item is an error.",
        "Refuse line breaks in subjects: they would begin another header.",
        _subject_line,
        ("tokens",),
    ),
    Check(
        "locales",
        "An item in the locale of a content is written from that content, and locale names it as the template does.",
        "Choose by the item's locale, and answer the content's own.",
        _locales,
        ("message",),
    ),
    Check(
        "fallback",
        "Without a content in de-AT the one in de serves, else that of the default locale, also where there is none.",
        "Leave the end of the locale off until there is a content, then take defaultLocale.",
        _fallback,
        ("locales",),
    ),
    Check(
        "again",
        "Equal items have equal results, in one call and in two.",
        "Put nothing into a message that isn't sent for it, such as the time or a number: equal items are sent once.",
        _again,
        ("message",),
    ),
    Check(
        "order",
        "Results stand in the order of the items, each as if it had been asked for alone.",
        "Share nothing between items: one person would read what is another's.",
        _order,
        ("again",),
    ),
    Check(
        "missing",
        "An item without a token has a message or an error for itself; those beside it are as without it.",
        "Let a missing token be empty, or answer the error of that item: a refusal of the whole call stops everybody.",
        _missing,
        ("order",),
    ),
    Check(
        "no_content",
        "For a channel in which a template says nothing each item has the error no_content.",
        "Never take the content of another channel.",
        _no_content,
        ("message",),
    ),
    Check(
        "unknown_version",
        "A version that is not there (any more) is answered with 410.",
        "Never take another version: a run says the same from its beginning to its end.",
        _unknown_version,
        ("message",),
    ),
    Check(
        "unknown_template",
        "A template that is not there (any more) is answered with 410.",
        "Answer 410, no 404: that is what a wrong TEMPLATE_SERVICE_URL looks like, and counts as nobody's fault.",
        _unknown_template,
        ("message",),
    ),
    Check(
        "time_zone",
        "Times are written in the zone of the item.",
        "Take occurrence.at to timeZone before it is written.",
        _time_zone,
        ("message",),
    ),
    Check(
        "full_call",
        "500 items are answered in time, with at most 64 MiB.",
        "Compile a content once for all items: the scheduler waits for TEMPLATE_SERVICE_TIMEOUT_S.",
        _full_call,
        ("message",),
    ),
)
