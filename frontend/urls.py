"""Addresses of the pages, of signing in by program, and of the API."""

from django.urls import URLPattern, URLResolver, include, path
from django.views.i18n import set_language
from oauth2_provider.views import OAuthServerMetadataView

# Importing frontend.admin registers every model on the site.
from frontend import admin  # noqa: F401
from frontend.admin_site import site
from frontend.api.problem_page import problem_types
from frontend.hooks import user_service
from frontend.pages import endpoints, exports, imports, topics
from frontend.pages.account import account, code, here, set_up, sign_out_everywhere, turn_off
from frontend.pages.api_docs import ApiDocs, ApiDocument, ApiReference
from frontend.pages.audit import audit, audit_csv
from frontend.pages.consent import Consent
from frontend.pages.dashboard import dashboard, dashboard_csv, dashboard_health
from frontend.pages.decisions import again, decide, release
from frontend.pages.display import display
from frontend.pages.explain import explain
from frontend.pages.home import home
from frontend.pages.ledger import ledger
from frontend.pages.messages import inbox, inbox_message, outbox, outbox_body, outbox_message
from frontend.pages.metrics import metrics
from frontend.pages.occurrence import occurrence, occurrence_person, occurrence_progress
from frontend.pages.occurrences import occurrences
from frontend.pages.people_csv import people_csv
from frontend.pages.policy_reports import policy_reports
from frontend.pages.security_txt import security_txt
from frontend.pages.story import story
from frontend.preferences import preferences_page, unsubscribe
from frontend.provider_hooks import ses
from frontend.sign_in import Revoke, Token

_OAUTH = (
    [
        path("oauth/authorize", Consent.as_view(), name="authorize"),
        path("oauth/token", Token.as_view(), name="token"),
        path("oauth/revoke", Revoke.as_view(), name="revoke-token"),
        path(".well-known/oauth-authorization-server", OAuthServerMetadataView.as_view(), name="oauth-server-metadata"),
    ],
    "oauth2_provider",
)

urlpatterns: list[URLPattern | URLResolver] = [
    path("", home, name="home"),
    path("display", display, name="display"),
    path("language", set_language, name="set_language"),
    path("admin/", site.urls),
    path("sign-in/code", code, name="sign-in-code"),
    path("account/", account, name="account"),
    path("account/here", here, name="here"),
    path("account/second-factor", set_up, name="second-factor"),
    path("account/second-factor/off", turn_off, name="second-factor-off"),
    path("account/sign-out", sign_out_everywhere, name="sign-out-everywhere"),
    path("", include(_OAUTH)),
    path("api/problems", problem_types, name="api-problems"),
    path("api/openapi.yaml", ApiDocument.as_view(), name="openapi"),
    path("api/docs", ApiDocs.as_view(url_name="openapi"), name="api-docs"),
    path("api/reference", ApiReference.as_view(url_name="openapi"), name="api-reference"),
    path("api/v1/", include("frontend.api.urls")),
    path("hooks/user-service", user_service, name="user-service-hook"),
    path("hooks/ses", ses, name="ses-hook"),
    path("metrics", metrics, name="metrics"),
    path("u/<str:token>", unsubscribe, name="unsubscribe"),
    path("p/<str:token>", preferences_page, name="preferences"),
    path("policy-reports", policy_reports, name="policy-reports"),
    path(".well-known/security.txt", security_txt, name="security-txt"),
    path("audit/", audit, name="audit"),
    path("audit/file", audit_csv, name="audit-csv"),
    path("", include("frontend.pages.schedules.urls")),
    path("dashboard/", dashboard, name="dashboard"),
    path("dashboard/health", dashboard_health, name="dashboard-health"),
    path("dashboard/file/<slug:what>", dashboard_csv, name="dashboard-csv"),
    path("ledger/", ledger, name="ledger"),
    path("ledger/<int:occurrence_id>/<int:recipient_id>/", story, name="delivery"),
    path("endpoints/", endpoints.listing, name="endpoints"),
    path("endpoints/new/", endpoints.new, name="endpoint-new"),
    path("endpoints/<int:endpoint_id>/", endpoints.endpoint, name="endpoint"),
    path("endpoints/<int:endpoint_id>/edit/", endpoints.edit, name="endpoint-edit"),
    path("endpoints/<int:endpoint_id>/switch/", endpoints.switch, name="endpoint-switch"),
    path("endpoints/<int:endpoint_id>/rotate/", endpoints.rotate, name="endpoint-rotate"),
    path("endpoints/<int:endpoint_id>/delete/", endpoints.delete, name="endpoint-delete"),
    path("endpoints/<int:endpoint_id>/send/", endpoints.send, name="endpoint-send"),
    path("explain/", explain, name="explain"),
    path("occurrences/", occurrences, name="occurrences"),
    path("occurrences/<int:occurrence_id>/", occurrence, name="occurrence"),
    path("occurrences/<int:occurrence_id>/progress", occurrence_progress, name="occurrence-progress"),
    path("occurrences/<int:occurrence_id>/person", occurrence_person, name="occurrence-person"),
    path("occurrences/<int:occurrence_id>/people.csv", people_csv, name="occurrence-people"),
    path("occurrences/<int:occurrence_id>/schedule/<slug:verb>/", decide, name="occurrence-decide"),
    path("occurrences/<int:occurrence_id>/again/", again, name="occurrence-again"),
    path("occurrences/<int:occurrence_id>/release/", release, name="occurrence-release"),
    path("outbox/", outbox, name="outbox"),
    path("outbox/<int:message_id>/", outbox_message, name="outbox-message"),
    path("outbox/<int:message_id>/body", outbox_body, name="outbox-body"),
    path("recipients/file", exports.recipients_file, name="recipients-file"),
    path("recipients/", include("frontend.pages.recipients.urls")),
    path("", include("frontend.pages.templates.urls")),
    path("schedules/", include("frontend.wizard.urls")),
    path("schedules/file", exports.schedules_file, name="schedules-file"),
    path("schedules/import/", imports.schedules, name="schedule-import"),
    path("templates/file", exports.templates_file, name="templates-file"),
    path("templates/import/", imports.templates, name="template-import"),
    path("topics/", topics.listing, name="topics"),
    path("topics/new/", topics.new, name="topic-new"),
    path("topics/<str:key>/", topics.topic, name="topic"),
    path("topics/<str:key>/archive/", topics.archive, name="topic-archive"),
    path("topics/<str:key>/restore/", topics.restore, name="topic-restore"),
    path("inbox/", inbox, name="inbox"),
    path("inbox/<int:message_id>/", inbox_message, name="inbox-message"),
]
