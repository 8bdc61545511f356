"""Addresses of templates and catalogues."""

from django.urls import path

from frontend.pages.templates import catalogues, editing, listing, previews

urlpatterns = [
    path("templates/", listing.listing, name="templates"),
    path("templates/new/", editing.new, name="template-new"),
    path("templates/preview/", previews.preview, name="template-preview"),
    path("templates/preview/body", previews.draft_body, name="template-preview-body"),
    path("templates/<int:template_id>/", editing.template, name="template"),
    path("templates/<int:template_id>/body", previews.body, name="template-body"),
    path("templates/<int:template_id>/versions/", editing.versions, name="template-versions"),
    path("templates/<int:template_id>/duplicate/", editing.duplicate, name="template-duplicate"),
    path("templates/<int:template_id>/delete/", editing.delete, name="template-delete"),
    path("catalogues/", catalogues.listing, name="catalogues"),
    path("catalogues/new/", catalogues.new, name="catalogue-new"),
    path("catalogues/<str:locale>/", catalogues.catalogue, name="catalogue"),
    path("catalogues/<str:locale>/message/", catalogues.message, name="catalogue-message"),
    path("catalogues/<str:locale>/remove/", catalogues.remove, name="catalogue-remove"),
]
