"""Files that leave: no cell that a spreadsheet would compute, whatever people wrote and wherever it splits."""

import csv
import io
import re

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory

from frontend.pages.csv_file import streamed
from tests.corpora import corpus

pytestmark = pytest.mark.django_db

FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def _file(rows: list[list[object]]) -> str:
    request = RequestFactory().get("/")
    request.user = AnonymousUser()
    return b"".join(streamed(request, rows, name="corpus")).decode().removeprefix("\ufeff")


def test_no_cell_of_the_corpus_begins_as_a_formula_and_none_loses_a_word():
    hostile = corpus("formulas")
    assert len(hostile) >= 200
    cells = [row[1] for row in csv.reader(io.StringIO(_file([["safe", each, 1] for each in hostile]), newline=""))]
    assert len(cells) == len(hostile)
    assert [cell for cell in cells if cell.startswith(FORMULA)] == []
    assert [cell.replace("'", "") for cell in cells] == [each.replace("'", "") for each in hostile]


def test_nor_does_one_where_a_spreadsheet_splits_at_semicolons_or_tabs():
    for each in corpus("formulas"):
        (cell,) = next(csv.reader(io.StringIO(_file([[each]]), newline="")))
        assert [part for part in re.split("[;\t\r\n]", cell) if part.startswith(FORMULA)] == [], each


def test_nor_where_quotes_or_spaces_stand_before_the_formula():
    """A spreadsheet that splits at semicolons reads ``;""=1`` as an empty quotation with a formula behind it."""
    for each in [*corpus("formulas"), 'a;"=1+1', "a;'=1+1", 'a; "+1', "a;\t =1", 'a\t"@SUM(1)']:
        for delimiter in ";\t":
            cells = [cell for row in csv.reader(io.StringIO(_file([[each]])), delimiter=delimiter) for cell in row]
            assert [cell for cell in cells if cell.lstrip(" ").startswith(tuple("=+-@＝＋－＠"))] == [], each


def test_texts_and_numbers_stay_as_they_are():
    assert (
        _file([["a=1", "x-y", "a@example.com", -1, 2.5, "O'Neil", "a; b"]])
        == "a=1,x-y,a@example.com,-1,2.5,O'Neil,a; b\r\n"
    )
