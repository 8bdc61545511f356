"""Addresses of the pages."""

from django.urls import URLPattern, URLResolver, path

# Importing frontend.admin registers every model on the site.
from frontend import admin  # noqa: F401
from frontend.admin_site import site
from frontend.pages.decisions import again, release
from frontend.pages.home import home
from frontend.pages.ledger import ledger
from frontend.pages.messages import inbox, inbox_message, outbox, outbox_message
from frontend.pages.metrics import metrics
from frontend.pages.occurrence import occurrence
from frontend.pages.story import story

urlpatterns: list[URLPattern | URLResolver] = [
    path("", home, name="home"),
    path("admin/", site.urls),
    path("metrics", metrics, name="metrics"),
    path("ledger/", ledger, name="ledger"),
    path("ledger/<int:occurrence_id>/<int:recipient_id>/", story, name="delivery"),
    path("occurrences/<int:occurrence_id>/", occurrence, name="occurrence"),
    path("occurrences/<int:occurrence_id>/again/", again, name="occurrence-again"),
    path("occurrences/<int:occurrence_id>/release/", release, name="occurrence-release"),
    path("outbox/", outbox, name="outbox"),
    path("outbox/<int:message_id>/", outbox_message, name="outbox-message"),
    path("inbox/", inbox, name="inbox"),
    path("inbox/<int:message_id>/", inbox_message, name="inbox-message"),
]
