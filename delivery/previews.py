"""A message as one reader would get it, without sending anything."""

from dataclasses import dataclass
from datetime import datetime

from delivery import renderers
from delivery.remote_rendering import Unrendered
from delivery.renderers import BuiltIn, Renderer
from delivery.rendering import Rendered, Shared
from delivery.rendering_limits import RenderError
from schedules import links
from schedules.consents import Asked
from schedules.content import PARTS, Content, pick_content, read_catalogues
from schedules.models import Catalogue, Channel, MessageTemplate, Recipient, TemplateVersion
from schedules.problems import Problem, say
from schedules.templates import InvalidTemplate

_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Said:
    """What is to be rendered, by whom. ``place``: pointer of the contents where they were sent; empty where kept."""

    name: str
    renderer: Renderer
    place: str = ""

    @classmethod
    def sent(cls, name: str, contents: tuple[Content, ...], default_locale: str, *, place: str) -> "Said":
        """Contents that are kept nowhere yet."""
        return cls(name, BuiltIn(contents, default_locale), place)

    @property
    def contents(self) -> tuple[Content, ...]:
        """Without words where the template service keeps these."""
        return self.renderer.contents

    @property
    def default_locale(self) -> str:
        return self.renderer.default_locale


@dataclass(frozen=True)
class Preview:
    """``rendered.locale`` is the content's; ``locale`` the reader's, by which it was chosen and numbers are written."""

    rendered: Rendered
    locale: str
    recipient: str | None


def kept(*, template_id: int, version: int | None) -> Said:
    """A version that a template has published, the last one by itself. Raises ``InvalidTemplate``."""
    found = 0 < template_id <= _LARGEST_ID and MessageTemplate.objects.live().filter(pk=template_id).first()
    if not found:
        raise InvalidTemplate([Problem("templateId", "not_found", say("There is no such template: choose another."))])
    number = found.version if version is None else version
    versions = TemplateVersion.objects.filter(template=found, version=number).select_related("template")
    said = versions.first() if number <= found.version else None
    if said is None:
        message = say("The template's versions are 1 to %(version)s.", version=str(found.version))
        raise InvalidTemplate([Problem("version", "not_found", message)])
    return Said(found.name, renderers.of(said))


def reader(*, external_id: str | None, locale: str | None) -> Recipient | None:
    """The person of that id; without one some person, of that locale if there is one, the same each time.

    None where there is nobody at all. Raises ``InvalidTemplate`` for an id that nobody has.
    """
    if external_id is not None:
        found = Recipient.objects.filter(external_id=external_id).first()
        if found is None:
            raise InvalidTemplate([Problem("recipient", "not_found", say("Nobody has this external id."))])
        return found
    people = Recipient.objects.order_by("id")
    return (people.filter(locale=locale).first() if locale else None) or people.first()


def beside(*, recipient_id: int, backwards: bool = False) -> Recipient | None:
    """The person after or before that one; past the end the first, before the beginning the last. None for nobody."""
    people = Recipient.objects.order_by("-id" if backwards else "id")
    past = {"id__lt": recipient_id} if backwards else {"id__gt": recipient_id}
    return people.filter(**past).first() or people.first()


def preview(
    *, said: Said, channel: str, person: Recipient | None, locale: str | None, address: str, now: datetime
) -> Preview:
    """Render for ``person``, in ``locale`` rather than the person's own where given, as of ``now``.

    ``address``: what stands for the person's e-mail address. Raises ``InvalidTemplate`` with every part that can't be
    rendered, or with why nobody can say at present what is: then the template service was waited for, for some seconds.
    """
    spoken = locale if locale is not None else person.locale if person else ""
    recipient = {
        "external_id": person.external_id if person else "",
        "email": address,
        "locale": spoken,
        "time_zone": person.time_zone if person else "",
        "attributes": person.attributes if person else {},
        **(links.sample_urls(Asked(channel)).tokens() if channel == Channel.EMAIL else {}),
    }
    shared = Shared(
        schedule_name=said.name,
        schedule_zone="UTC",
        occurrence_at=now,
        default_locale=said.default_locale,
        catalogues=read_catalogues(Catalogue.objects.live().values_list("locale", "messages")),
    )
    try:
        rendered = said.renderer.preview(channel=channel, recipient=recipient, shared=shared)
    except Unrendered as unrendered:
        raise InvalidTemplate([Problem("templateId", unrendered.reason, unrendered.words)]) from None
    except RenderError as error:
        raise InvalidTemplate(_faults(said, channel, recipient, shared) or [_fault(said, error)]) from error
    return Preview(rendered, spoken, person.external_id if person else None)


def _faults(said: Said, channel: str, recipient: dict[str, object], shared: Shared) -> list[Problem]:
    """What is wrong with each part, rendered by itself; of a template that is kept here."""
    if not isinstance(said.renderer, BuiltIn):
        return []
    locale = str(recipient["locale"])
    picked = pick_content(contents=said.contents, channel=channel, locale=locale, default_locale=said.default_locale)
    if picked is None:
        return []
    problems = []
    for part in PARTS:
        alone = BuiltIn((Content(channel, picked.locale, **{part: getattr(picked, part)}),), said.default_locale)
        try:
            alone.preview(channel=channel, recipient=recipient, shared=shared)
        except RenderError as error:
            place = f"{said.place}/{said.contents.index(picked)}/{part}" if said.place else "templateId"
            words = error.words
            if not said.place:
                words = say("%(channel)s in %(locale)s: %(words)s", channel=channel, locale=picked.locale, words=words)
            problems.append(Problem(place, error.reason, words))
    return problems


def _fault(said: Said, error: RenderError) -> Problem:
    return Problem(said.place or "templateId", error.reason, error.words)
