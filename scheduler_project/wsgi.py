"""The web application for gunicorn."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
django = get_wsgi_application()

from audit import roles  # noqa: E402 - it needs the settings
from frontend import hooks  # noqa: E402
from frontend.api.bodies import Chunked  # noqa: E402
from schedules import encryption, rotation  # noqa: E402

encryption.keyset()  # without keys it does not start
hooks.require_secrets()  # nor with one that can be guessed
roles.require_granted()
rotation.tell_stale()

application = Chunked(django)
