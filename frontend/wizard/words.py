"""What is wrong with a schedule, for people."""

from frontend.problem_words import problem_in_words

__all__ = ("problem_in_words",)
