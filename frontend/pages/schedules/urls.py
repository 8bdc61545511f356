"""Addresses of the schedules' pages."""

from django.urls import path

from frontend.pages.schedules.actions import bulk, do, people
from frontend.pages.schedules.calendar import calendar
from frontend.pages.schedules.detail import detail, forecast
from frontend.pages.schedules.history import history
from frontend.pages.schedules.listing import listing
from frontend.pages.schedules.test_send import result, test_send

urlpatterns = [
    path("schedules/", listing, name="schedules"),
    path("schedules/bulk/", bulk, name="schedules-bulk"),
    path("schedules/<int:schedule_id>/", detail, name="schedule"),
    path("schedules/<int:schedule_id>/forecast/", forecast, name="schedule-forecast"),
    path("schedules/<int:schedule_id>/history/", history, name="schedule-history"),
    path("schedules/<int:schedule_id>/size/", people, name="schedule-people"),
    path("schedules/<int:schedule_id>/do/<slug:verb>/", do, name="schedule-do"),
    path("schedules/<int:schedule_id>/test/", test_send, name="schedule-test"),
    path("schedules/<int:schedule_id>/test/<int:test_send_id>/", result, name="schedule-test-result"),
    path("calendar/", calendar, name="calendar"),
]
