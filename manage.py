#!/usr/bin/env python
"""Django's command line."""

import os
import sys

from django.core.management import execute_from_command_line
from environs.exceptions import EnvError

from scheduler_project.local.errors import LocalServicesError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
    try:
        execute_from_command_line(sys.argv)
    except LocalServicesError as error:
        sys.exit(f"manage.py: {error}")
    except EnvError as error:
        sys.exit(
            f"manage.py: {error}. Set it in the environment of every process; scheduler_project/settings.py has all."
        )


if __name__ == "__main__":
    main()
