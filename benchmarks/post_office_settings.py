"""Settings of the peer's processes: django-post_office on the benchmark's database, and nothing of ours."""

from scheduler_project.settings import DATABASES, SECRET_KEY

__all__ = ["DATABASES", "SECRET_KEY"]

INSTALLED_APPS = ["django.contrib.contenttypes", "post_office"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
EMAIL_BACKEND = "post_office.EmailBackend"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
POST_OFFICE = {
    "BACKENDS": {"default": "benchmarks.post_office_child.SesBackend"},
    "TEMPLATE_ENGINE": "django",
    # After a hundred, as the default is, its processes would begin anew.
    "BATCH_SIZE": 100_000,
    # Failures alone: a row for each e-mail that went out would be one more than anybody else writes.
    "LOG_LEVEL": 1,
}
