"""The core's problems as form errors."""

from collections.abc import Iterable
from typing import Any, Protocol

from django import forms


class Problem(Protocol):
    """What recurrence, audience and templates all report."""

    @property
    def field(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...


def add_problems(form: forms.BaseForm, problems: Iterable[Problem]) -> None:
    """Each at its field, or above the form, named, where the form has no such field."""
    for problem in problems:
        if problem.field in form.fields:
            form.add_error(problem.field, forms.ValidationError(problem.message, code=problem.code))
        else:
            message = f"{problem.field}: {problem.message}" if problem.field else problem.message
            form.add_error(None, forms.ValidationError(message, code=problem.code))


def as_messages(problems: Iterable[Any]) -> list[str]:
    return [f"{problem.field}: {problem.message}" for problem in problems]
