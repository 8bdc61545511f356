"""Who renders a version of a template: this service, or the template service. One port, and tests that both pass.

``render_many`` never raises and gives a result for each recipient, in their order. What is wrong with one concerns that
one alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from delivery import rendering
from delivery.remote_rendering import Remote, Result, Wanted, render_together
from delivery.rendering import Rendered, Shared
from schedules.content import Content, read_contents
from schedules.models import TemplateVersion


class Renderer(Protocol):
    """One version of a template. ``contents``: what it says where, without words where these are not kept here."""

    @property
    def contents(self) -> tuple[Content, ...]: ...

    @property
    def default_locale(self) -> str: ...

    def reads(self, field: str, *, channel: str) -> bool:
        """Whether what it says in the channel reads this field of ``recipient``."""

    def render_many(self, *, channel: str, recipients: Sequence[Mapping[str, Any]], shared: Shared) -> Sequence[Result]:
        """As ``rendering.render_many``."""

    def preview(self, *, channel: str, recipient: Mapping[str, Any], shared: Shared) -> Rendered:
        """One recipient's message, with the tokens that it lacks. Raises ``RenderError`` and ``Unrendered``."""


@dataclass(frozen=True)
class BuiltIn:
    """Of templates kept here."""

    contents: tuple[Content, ...]
    default_locale: str

    def reads(self, field: str, *, channel: str) -> bool:
        return rendering.reads(field, contents=self.contents, channel=channel)

    def render_many(self, *, channel: str, recipients: Sequence[Mapping[str, Any]], shared: Shared) -> Sequence[Result]:
        return rendering.render_many(contents=self.contents, channel=channel, recipients=recipients, shared=shared)

    def preview(self, *, channel: str, recipient: Mapping[str, Any], shared: Shared) -> Rendered:
        return rendering.preview(contents=self.contents, channel=channel, recipient=recipient, shared=shared)


@dataclass(frozen=True)
class OfService:
    """Of templates that the template service keeps. Each call waits for it, at most as long as the settings say."""

    contents: tuple[Content, ...]
    default_locale: str
    remote: Remote

    def reads(self, field: str, *, channel: str) -> bool:
        return self.remote.reads(field)

    def render_many(self, *, channel: str, recipients: Sequence[Mapping[str, Any]], shared: Shared) -> Sequence[Result]:
        (results,) = render_together([Wanted(self.remote, channel, recipients, shared)]).results
        return results

    def preview(self, *, channel: str, recipient: Mapping[str, Any], shared: Shared) -> Rendered:
        (result,) = self.render_many(channel=channel, recipients=[recipient], shared=shared)
        if not isinstance(result, Rendered):
            raise result
        given = self.remote.values(recipient, shared)
        return result._replace(missing_tokens=frozenset(self.remote.tokens) - given.keys())


@lru_cache(maxsize=1024)
def of_version(template_id: int, version: int) -> Renderer:
    """Of a template's version, by their numbers here. Versions never change; one that is not there says nothing."""
    kept = TemplateVersion.objects.filter(template=template_id, version=version).select_related("template").first()
    return of(kept) if kept else BuiltIn((), "en")


def of(kept: TemplateVersion) -> Renderer:
    """Its ``template`` is read with it."""
    contents = read_contents(kept.contents)
    if not kept.service_version:  # the version's, since a template may have been handed over meanwhile
        return BuiltIn(contents, kept.default_locale)
    channels = frozenset(content.channel for content in contents)
    remote = Remote(kept.template_id, kept.template.service_id, kept.service_version, channels, tuple(kept.tokens))
    return OfService(contents, kept.default_locale, remote)
