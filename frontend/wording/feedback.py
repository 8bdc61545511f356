"""What providers tell of messages afterwards, in words."""

from collections.abc import Mapping
from datetime import datetime

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from delivery.models import Feedback, News
from frontend.instants import show
from frontend.wording.reasons import Words
from schedules import clock
from schedules.models import Suppression

# As on a badge.
NEWS: Mapping[News, Words] = {
    News.ACCEPTED: gettext_lazy("on its way"),
    News.DELAYED: gettext_lazy("put off"),
    News.BOUNCED_SOFT: gettext_lazy("came back for now"),
    News.DELIVERED: gettext_lazy("delivered"),
    News.REJECTED: gettext_lazy("stopped by the provider"),
    News.NOT_RENDERED: gettext_lazy("not filled in"),
    News.BOUNCED_HARD: gettext_lazy("came back"),
    News.COMPLAINED: gettext_lazy("called spam"),
}
# The colours are those of outcomes.
CSS: Mapping[News, str] = {
    News.ACCEPTED: "pending",
    News.DELAYED: "expired",
    News.BOUNCED_SOFT: "expired",
    News.DELIVERED: "sent",
    News.REJECTED: "failed",
    News.NOT_RENDERED: "failed",
    News.BOUNCED_HARD: "failed",
    News.COMPLAINED: "failed",
}
_SENTENCES: Mapping[News, Words] = {
    News.ACCEPTED: gettext_lazy("The provider hands it on since %(at)s."),
    News.DELAYED: gettext_lazy("The person's mail server put it off at %(at)s; the provider goes on trying."),
    News.BOUNCED_SOFT: gettext_lazy("It came back at %(at)s: the person's mail server did not take it this time."),
    News.DELIVERED: gettext_lazy("The person's mail server took it at %(at)s."),
    News.REJECTED: gettext_lazy("The provider found something harmful in it at %(at)s, and did not send it."),
    News.NOT_RENDERED: gettext_lazy("The provider could not fill it in at %(at)s, and did not send it."),
    News.BOUNCED_HARD: gettext_lazy("It came back at %(at)s: the address takes no mail."),
    News.COMPLAINED: gettext_lazy("The person called it spam at %(at)s."),
}
_REASONS: Mapping[str, Words] = {
    Suppression.Reason.BLOCKED: gettext_lazy("Somebody has blocked the address."),
    Suppression.Reason.BOUNCED_OFTEN: gettext_lazy("Several messages to it came back within a fortnight."),
    Suppression.Reason.BOUNCED: gettext_lazy("A message to it came back: it takes no mail."),
    Suppression.Reason.COMPLAINED: gettext_lazy("A message to it was called spam."),
}


def news_at(row: Feedback, news: News) -> datetime | None:
    """When the provider first told so, on the clock of business time."""
    at: datetime | None = getattr(row, f"{news.label}_at")
    return at + clock.shift() if at else None


def all_news(row: Feedback) -> list[tuple[News, datetime]]:
    """Everything that was told, the earliest first."""
    told = [(news, at) for news in News if (at := news_at(row, news))]
    return sorted(told, key=lambda pair: (pair[1], pair[0]))


def sentence(row: Feedback, *, shown_in: str) -> str:
    """The gravest of it; empty where it says no more than that the message was taken."""
    news = News(row.news)
    if news is News.ACCEPTED:
        return ""
    return str(_SENTENCES[news]) % {"at": show(news_at(row, news), shown_in)}


def in_words(news: News, at: datetime, *, shown_in: str) -> str:
    """One thing that was told, as a sentence."""
    return str(_SENTENCES[news]) % {"at": show(at, shown_in)}


def why_suppressed(reason: str) -> str:
    """Why an address is not written to any more."""
    return str(_REASONS.get(reason, reason))


def since(at: datetime | None, *, shown_in: str) -> str:
    """As the end of a sentence's paragraph."""
    return _("The address is not written to since %(at)s.") % {"at": show(at, shown_in)} if at else ""
