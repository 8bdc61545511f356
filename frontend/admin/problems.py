"""The core's problems as form errors."""

from collections.abc import Iterable

from django import forms

from schedules.problems import Problem


def add_problems(form: forms.BaseForm, problems: Iterable[Problem]) -> None:
    """Each at its field, or above the form, named, where the form has no such field."""
    for problem in problems:
        if problem.field in form.fields:
            form.add_error(problem.field, forms.ValidationError(problem.message, code=problem.code))
        else:
            message = f"{problem.field}: {problem.message}" if problem.field else problem.message
            form.add_error(None, forms.ValidationError(message, code=problem.code))
