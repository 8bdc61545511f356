"""Addresses of the wizard and of the page on which a schedule is changed."""

from django.urls import path

from frontend.wizard.editing import edit
from frontend.wizard.panels import body, look, offered, people, test_state
from frontend.wizard.views import build, new

urlpatterns = [
    path("new/", new, name="wizard"),
    path("<int:schedule_id>/edit/", edit, name="schedule-edit"),
    path("<int:schedule_id>/build/<slug:step>/", build, name="wizard-step"),
    path("<int:schedule_id>/look/<slug:step>/", look, name="wizard-look"),
    path("<int:schedule_id>/people/", people, name="wizard-people"),
    path("<int:schedule_id>/templates/", offered, name="wizard-templates"),
    path("<int:schedule_id>/message/", body, name="wizard-body"),
    path("<int:schedule_id>/tests/<int:test_send_id>/", test_state, name="wizard-test"),
]
