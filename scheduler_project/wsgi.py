"""The web application for gunicorn."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
django = get_wsgi_application()

from frontend.api.bodies import Chunked  # noqa: E402 - it needs the settings
from schedules import encryption  # noqa: E402

encryption.keyset()  # without keys it does not start

application = Chunked(django)
