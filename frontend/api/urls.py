"""Addresses of the API, below ``/api/v1``; none ends in a slash."""

from django.urls import URLPattern, URLResolver, path, re_path, register_converter

from frontend.api import endpoints, inbox, recipients
from frontend.api import schedule_actions as actions
from frontend.api.catalogues import Catalogues, OneCatalogue
from frontend.api.deliveries import Deliveries
from frontend.api.devices import Devices, MyDevices, OneDevice
from frontend.api.explanations import Explain
from frontend.api.files import ExportRecipients, ExportSchedules, ExportTemplates, ImportSchedules, ImportTemplates
from frontend.api.inbox_stream import InboxStream
from frontend.api.missing import Missing
from frontend.api.occurrences import OneOccurrence, Release, RetryFailed, ScheduleOccurrences
from frontend.api.paths import ExternalId
from frontend.api.planning import ForecastSchedule, Validate
from frontend.api.previews import AudiencePreview, MessagePreview
from frontend.api.recipients_bulk import BulkRecipients
from frontend.api.schedules import OneSchedule, Schedules
from frontend.api.suppressions import OneSuppression, Suppressions
from frontend.api.templates import OneTemplate, OneTemplateVersion, Templates, TemplateVersions
from frontend.api.topics import ArchiveTopic, OneTopic, RestoreTopic, Topics

register_converter(ExternalId, "external")

urlpatterns: list[URLPattern | URLResolver] = [
    path("schedules", Schedules.as_view()),
    path("schedules/<int:schedule_id>", OneSchedule.as_view()),
    path("schedules/<int:schedule_id>/activate", actions.Activate.as_view()),
    path("schedules/<int:schedule_id>/pause", actions.Pause.as_view()),
    path("schedules/<int:schedule_id>/resume", actions.Resume.as_view()),
    path("schedules/<int:schedule_id>/cancel", actions.Cancel.as_view()),
    path("schedules/<int:schedule_id>/duplicate", actions.Duplicate.as_view()),
    path("schedules/<int:schedule_id>/run-now", actions.RunNow.as_view()),
    path("schedules/<int:schedule_id>/test-send", actions.SendTest.as_view()),
    path("test-sends/<int:test_send_id>", actions.OneTestSend.as_view()),
    path("schedules/<int:schedule_id>/next-runs", actions.NextRuns.as_view()),
    path("schedules/<int:schedule_id>/history", actions.History.as_view()),
    path("templates", Templates.as_view()),
    path("templates/<int:template_id>", OneTemplate.as_view()),
    path("templates/<int:template_id>/versions", TemplateVersions.as_view()),
    path("templates/<int:template_id>/versions/<int:version>", OneTemplateVersion.as_view()),
    path("catalogues", Catalogues.as_view()),
    path("catalogues/<str:locale>", OneCatalogue.as_view()),
    path("topics", Topics.as_view()),
    path("topics/<str:key>", OneTopic.as_view()),
    path("topics/<str:key>/archive", ArchiveTopic.as_view()),
    path("topics/<str:key>/restore", RestoreTopic.as_view()),
    path("schedules:export", ExportSchedules.as_view()),
    path("schedules:import", ImportSchedules.as_view()),
    path("templates:export", ExportTemplates.as_view()),
    path("templates:import", ImportTemplates.as_view()),
    path("schedules:validate", Validate.as_view()),
    path("schedules:forecast", ForecastSchedule.as_view()),
    path("audiences:preview", AudiencePreview.as_view()),
    path("templates:preview", MessagePreview.as_view()),
    path("schedules/<int:schedule_id>/occurrences", ScheduleOccurrences.as_view()),
    path("occurrences/<int:occurrence_id>", OneOccurrence.as_view()),
    path("occurrences/<int:occurrence_id>:retry-failed", RetryFailed.as_view()),
    path("occurrences/<int:occurrence_id>:release", Release.as_view()),
    path("deliveries", Deliveries.as_view()),
    path("explain", Explain.as_view()),
    path("recipients", recipients.Recipients.as_view()),
    path("recipients:bulk", BulkRecipients.as_view()),
    path("recipients:export", ExportRecipients.as_view()),
    path("recipients/<external:external_id>/devices/<int:device_id>", OneDevice.as_view()),
    path("recipients/<external:external_id>/devices", Devices.as_view()),
    path("recipients/<external:external_id>/export", recipients.ExportRecipient.as_view()),
    path("recipients/<external:external_id>", recipients.OneRecipient.as_view()),
    path("me/devices", MyDevices.as_view()),
    path("me/inbox/stream", InboxStream.as_view()),
    path("suppressions", Suppressions.as_view()),
    path("suppressions/<int:suppression_id>", OneSuppression.as_view()),
    path("endpoints", endpoints.Endpoints.as_view()),
    path("endpoints/<int:endpoint_id>", endpoints.OneEndpoint.as_view()),
    path("endpoints/<int:endpoint_id>/on", endpoints.SwitchOn.as_view()),
    path("endpoints/<int:endpoint_id>/off", endpoints.SwitchOff.as_view()),
    path("endpoints/<int:endpoint_id>/rotate-secret", endpoints.Rotate.as_view()),
    path("endpoints/<int:endpoint_id>/test", endpoints.SendTest.as_view()),
    path("endpoints/<int:endpoint_id>/replay", endpoints.Replay.as_view()),
    path("endpoints/<int:endpoint_id>/events", endpoints.Postings.as_view()),
    path("endpoints/<int:endpoint_id>/events/<int:posting_id>/replay", endpoints.ReplayOne.as_view()),
    path("inbox", inbox.Inbox.as_view()),
    path("inbox/unread-count", inbox.UnreadCount.as_view()),
    path("inbox/<int:message_id>:read", inbox.Read.as_view()),
    path("inbox/<int:message_id>:unread", inbox.Unread.as_view()),
    path("inbox/<int:message_id>:archive", inbox.Archive.as_view()),
    path("inbox:read-all", inbox.AllRead.as_view()),
    re_path(r"^[\s\S]*$", Missing.as_view()),
]
