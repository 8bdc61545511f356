"""Addresses of the pages about people. Ids are the surrogates: an external id in an address would end in logs."""

from django.urls import path

from frontend.pages.recipients import blocking, editing, imports, listing, person

urlpatterns = [
    path("", listing.listing, name="recipients"),
    path("new/", editing.new, name="recipient-new"),
    path("import/", imports.imports, name="recipient-imports"),
    path("import/<int:import_id>/", imports.one, name="recipient-import"),
    path("import/<int:import_id>/confirm/", imports.confirm, name="recipient-import-confirm"),
    path("import/<int:import_id>/discard/", imports.discard, name="recipient-import-discard"),
    path("import/<int:import_id>/bad-lines.csv", imports.report, name="recipient-import-report"),
    path("<int:recipient_id>/", person.person, name="recipient"),
    path("<int:recipient_id>/edit/", editing.edit, name="recipient-edit"),
    path("<int:recipient_id>/erase/", editing.erase, name="recipient-erase"),
    path("<int:recipient_id>/block/", blocking.block, name="recipient-block"),
    path("<int:recipient_id>/unblock/", blocking.unblock, name="recipient-unblock"),
    path("<int:recipient_id>/devices/", editing.add_device, name="recipient-device-add"),
    path("<int:recipient_id>/devices/<int:device_id>/remove/", editing.remove_device, name="recipient-device-remove"),
]
