"""Every address of the service."""

from django.urls import include, path

handler400 = "frontend.pages.errors.unreadable"
handler403 = "frontend.pages.errors.forbidden"
handler404 = "frontend.pages.errors.missing"
handler500 = "frontend.pages.errors.failed"

urlpatterns = [path("", include("frontend.urls"))]
