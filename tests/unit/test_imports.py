"""Reading files of people: bytes to rows and bad lines. What happens in the database is an integration test."""

import io
import json
import re
import tracemalloc

import pytest

from schedules.imports.csv_rows import CsvRows
from schedules.imports.lines import MAX_LINE, Unreadable
from schedules.imports.ndjson_rows import NdjsonRows
from schedules.imports.rows import BadLine, Row


def read_csv(data, *, encoding="utf-8", delimiter="", infer_types=False):
    stream = io.BytesIO(data.encode() if isinstance(data, str) else data)
    return list(CsvRows(stream, encoding=encoding, delimiter=delimiter, infer_types=infer_types))


def read_ndjson(*lines, encoding="utf-8"):
    data = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    return list(NdjsonRows(io.BytesIO(data), encoding=encoding))


def from_csv(**cells):
    """The one row, or bad line, of a file with these columns beside external_id."""
    header = ",".join(["external_id", *cells])
    quoted = ",".join('"' + cell.replace('"', '""') + '"' for cell in ["1", *cells.values()])
    (row,) = read_csv(f"{header}\n{quoted}\n")
    return row


def from_ndjson(**fields):
    (row,) = read_ndjson(json.dumps({"external_id": "1", **fields}))
    return row


def ids(rows):
    return [(row.line, row.external_id) for row in rows if isinstance(row, Row)]


def bad(rows):
    return [row for row in rows if isinstance(row, BadLine)]


def attributes(row):
    return json.loads(row.attributes)


# Lines, delimiters and quotes


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_of_three_ways(end):
    assert ids(read_csv(end.join(["id", "a", "b", ""]))) == [(2, "a"), (3, "b")]


def test_the_last_line_needs_no_end():
    assert ids(read_csv("id\na")) == [(2, "a")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found_by_the_header(delimiter):
    (row,) = read_csv(f'city{delimiter}id\n"Wien, 1; a\tb"{delimiter}7\n')
    assert row.external_id == "7"
    assert attributes(row) == {"city": "Wien, 1; a\tb"}


def test_the_delimiter_that_yields_the_id_wins_over_the_one_that_yields_more_columns():
    (row,) = read_csv("id;name, first, middle, last\n7;x\n")
    assert row.external_id == "7"


def test_a_given_delimiter_is_not_doubted():
    (row,) = read_csv("id,a;external_id\nx,y;7\n", delimiter=";")
    assert row.external_id == "7"
    assert attributes(row) == {"id_a": "x,y"}


def test_excels_line_that_names_the_delimiter_is_understood():
    assert ids(read_csv("sep=;\r\nid;email\r\n7;a@b.example\r\n")) == [(3, "7")]


def test_a_quoted_field_may_hold_delimiters_quotes_and_line_breaks_and_numbers_stay_those_of_the_file():
    rows = read_csv('id,note\r\n1,"a, ""b""\r\nc"\r\n2,x\r\n3\r\n')
    assert ids(rows) == [(2, "1"), (4, "2")]
    assert attributes(rows[0]) == {"note": 'a, "b"\r\nc'}
    assert [line.line for line in bad(rows)] == [5]


def test_spaces_around_a_quoted_field_are_no_part_of_it():
    (row,) = read_csv('id, note\n1, "a, b"\n')
    assert attributes(row) == {"note": "a, b"}


def test_empty_lines_and_lines_of_empty_cells_are_no_people():
    assert ids(read_csv("\nid,email\n\n1,\n,\n   \n2,\n")) == [(4, "1"), (7, "2")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("5", "has 1 of the header's 2 fields"),
        ("5,a,b", "has 3 fields where the header has 2"),
        ("5,a,", "has 3 fields"),
    ],
)
def test_a_line_with_too_few_or_too_many_fields_is_bad(line, words):
    rows = read_csv(f"id,plan\n1,x\n{line}\n2,y\n")
    assert ids(rows) == [(2, "1"), (4, "2")]
    assert bad(rows)[0].line == 3
    assert words in bad(rows)[0].reason


def test_a_quote_that_is_never_closed_costs_its_own_line_only():
    rows = read_csv('id,plan\n1,x\n2,"y\n3,z\n4,z\n')
    assert ids(rows) == [(2, "1"), (4, "3"), (5, "4")]
    assert [(line.line, "quote" in line.reason) for line in bad(rows)] == [(3, True)]


def test_lines_that_two_stray_quotes_tie_together_are_read_again_one_by_one():
    rows = read_csv('id,plan\n1,"x\n2,y\n3,"z"\n4,z\n')
    assert ids(rows) == [(3, "2"), (4, "3"), (5, "4")]
    assert [line.line for line in bad(rows)] == [2]


def test_a_quote_that_swallows_a_whole_large_file_is_given_up_after_a_line_s_limit():
    people = MAX_LINE // 8 + 1_000
    rows = read_csv('id,plan\n1,"x\n' + "22,aaaa\n" * people)
    assert len(ids(rows)) == people
    assert [line.line for line in bad(rows)] == [2]


@pytest.mark.parametrize("text", ['2,"a"b', '2,"a" b'])
def test_a_quote_inside_a_quoted_field_must_be_doubled(text):
    rows = read_csv(f"id,plan\n{text}\n3,x\n")
    assert ids(rows) == [(3, "3")]
    assert "inside a quoted field" in bad(rows)[0].reason


def test_a_huge_line_is_bad_and_takes_little_memory():
    class Endless(io.RawIOBase):
        """A header, one line of 60 MB, another line."""

        def __init__(self):
            self._parts = iter([b"id,plan\n1,", *[b"x" * 4_096] * 15_000, b"\n2,y\n"])

        def readable(self):
            return True

        def readinto(self, buffer):
            part = next(self._parts, b"")
            buffer[: len(part)] = part
            return len(part)

    tracemalloc.start()
    rows = list(CsvRows(Endless(), encoding="utf-8", delimiter="", infer_types=False))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ids(rows) == [(3, "2")]
    assert "longer than 1,048,576 characters" in bad(rows)[0].reason
    assert peak < 16 * 1024 * 1024


def test_a_field_beyond_the_limit_of_the_csv_module_is_bad():
    rows = read_csv("id,plan\n1," + "x" * 200_000 + "\n2,y\n")
    assert ids(rows) == [(3, "2")]
    assert "131,072 characters" in bad(rows)[0].reason


# Encodings


def test_a_byte_order_mark_is_accepted():
    assert ids(read_csv(b"\xef\xbb\xbfid\n1\n")) == [(2, "1")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_the_mark_of_utf_16_and_utf_32_says_the_encoding(encoding):
    (row,) = read_csv("id\tcity\n1\tKöln\n".encode(encoding))
    assert attributes(row) == {"city": "Köln"}


def test_utf_16_without_a_mark_is_recognised_and_named():
    with pytest.raises(Unreadable, match=r"looks like UTF-16 .*: give its encoding, utf-16-le"):
        read_csv("id,city\n1,x\n".encode("utf-16-le"))
    assert ids(read_csv("id,city\n1,x\n".encode("utf-16-le"), encoding="utf-16-le")) == [(2, "1")]


def test_a_line_in_another_encoding_is_bad_and_the_encodings_to_try_are_named():
    rows = read_csv("id,city\n1,Wien\n2,Köln\n3,Graz\n".encode("cp1252"))
    assert ids(rows) == [(2, "1"), (4, "3")]
    (line,) = bad(rows)
    assert line.line == 3
    for word in ("not valid UTF-8", "cp1252", "cp1250", "cp1251", "utf-16"):
        assert word in line.reason


def test_the_encoding_can_be_given():
    (row,) = read_csv("id,city\n2,Köln\n".encode("cp1252"), encoding="cp1252")
    assert attributes(row) == {"city": "Köln"}


def test_a_header_in_another_encoding_stops_the_import():
    with pytest.raises(Unreadable, match=r"header \(line 1\) that is not valid UTF-8.*cp1252"):
        read_csv("id,größe\n2,1\n".encode("cp1252"))


def test_broken_utf_16_stops_at_its_line():
    with pytest.raises(Unreadable, match="a line 3 that is not valid utf-16"):
        read_csv("id\n1\n".encode("utf-16") + b"\x00")


def test_an_unknown_encoding_is_refused():
    for encoding in ("latin-99", "base64"):
        with pytest.raises(Unreadable, match=f"can't be read as '{encoding}': give an encoding such as utf-8, cp1252"):
            read_csv("id\n1\n", encoding=encoding)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"PK\x03\x04rest", "save it as “CSV UTF-8”"),
        (b"\x1f\x8b\x08", "unpack it first"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
    ],
)
def test_files_that_are_no_text_are_named(start, words):
    with pytest.raises(Unreadable, match=words):
        read_csv(start)
    with pytest.raises(Unreadable, match=words):
        read_ndjson(start)


def test_a_nul_makes_its_line_bad():
    rows = read_csv("id,plan\n1,a\0b\n2,x\n")
    assert ids(rows) == [(3, "2")]
    assert "NUL" in bad(rows)[0].reason
    rows = read_ndjson('{"external_id": "a\0"}', '{"external_id": "2"}')
    assert ids(rows) == [(2, "2")]
    assert "NUL" in bad(rows)[0].reason


# Columns


@pytest.mark.parametrize(
    "name",
    [
        "external_id",
        "External ID",
        "externalId",
        "EXTERNAL-ID",
        "id",
        "ID",
        "user_id",
        "User Id",
        "customer_id",
        "Contact ID",
        "subscriber_id",
    ],
)
def test_the_id_s_column_may_be_called_as_other_programs_call_it(name):
    assert ids(read_csv(f"{name}\n7\n")) == [(2, "7")]


def test_the_other_fields_have_synonyms_too():
    row = from_csv(**{"E-Mail Address": "a@b.example", "Language": "de", "Time Zone": "Europe/Berlin", "Tags": "x"})
    assert (row.email, row.locale, row.time_zone, row.tags) == ("a@b.example", "de", "Europe/Berlin", '["x"]')
    row = from_csv(mail="a@b.example", tz="UTC", consentInApp="no")
    assert (row.email, row.time_zone, row.consent) == ("a@b.example", "UTC", '{"in_app":false}')


def test_beside_a_field_s_own_name_its_synonym_is_an_attribute():
    (row,) = read_csv("id,external_id,email,Mail\nx,7,a@b.example,c@d.example\n")
    assert (row.external_id, row.email) == ("7", "a@b.example")
    assert attributes(row) == {"id": "x", "Mail": "c@d.example"}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("email,name", "has no column external_id .columns: email, name.: .* id, user_id, customer_id"),
        ("id,user_id", "several columns that could be external_id: 'id' .column 1., 'user_id' .column 2."),
        ("external_id,email,Email", "several columns that could be email"),
        ("id,plan,plan", "two columns for the attribute plan"),
        ("id,First Name,first.name:text,First_Name", "two columns for the attribute First_Name"),
        ("id,age:int", "'age:int' whose type 'int' is unknown: use text, number, boolean, json"),
        ("id,email:text", "email takes no type"),
        ("id,consents", "say for which channel, consent_email, consent_push, consent_in_app"),
        ("id,consent_sms", "say for which channel"),
        ("id,§§", "can't name an attribute"),
        ("id," + "x" * 65, "can't name an attribute"),
        (" \n", "has no column external_id|nothing but empty lines"),
    ],
)
def test_a_header_that_makes_no_sense_stops_the_import(header, words):
    with pytest.raises(Unreadable, match=words):
        read_csv(f"{header}\n")


def test_a_header_alone_is_a_file_of_nobody():
    assert read_csv("id,email\n") == []


def test_any_other_column_is_an_attribute_of_its_name():
    assert attributes(from_csv(plan="pro", **{"attributes.city": "Köln"})) == {"plan": "pro", "city": "Köln"}


def test_a_column_whose_name_could_not_be_queried_is_renamed_and_said_so():
    data = "id,First Name,plan,attributes.Größe (cm):number\n1,Eva,pro,170\n"
    rows = CsvRows(io.BytesIO(data.encode()), encoding="utf-8", delimiter="", infer_types=False)
    assert rows.renamed == {"First Name": "First_Name", "attributes.Größe (cm):number": "Größe_cm"}
    (row,) = rows
    assert attributes(row) == {"First_Name": "Eva", "plan": "pro", "Größe_cm": 170}


def test_a_column_without_a_name_must_be_empty():
    rows = read_csv("id,,\n1,,\n2,,x\n")
    assert ids(rows) == [(2, "1")]
    assert "column 3, which has no name" in bad(rows)[0].reason


def test_a_field_without_a_column_is_left_alone():
    (row,) = read_csv("id\n1\n")
    assert row == Row(2, "1", attributes="{}")


# Attributes and their types


def test_cells_are_texts_unless_a_type_is_asked_for():
    row = from_csv(age="30", zip="01234", **{"points:number": "1.50", "vip:boolean": "Yes", "likes:json": '["a", 1]'})
    assert attributes(row) == {"age": "30", "zip": "01234", "points": 1.5, "vip": True, "likes": ["a", 1]}


@pytest.mark.parametrize(
    ("cell", "number"), [("30", 30), ("-1.5", -1.5), ("+7", 7), ("007", 7), (" 0 ", 0), ("0.5", 0.5)]
)
def test_a_column_of_numbers_holds_numbers(cell, number):
    assert attributes(from_csv(**{"age:number": cell})) == {"age": number}


@pytest.mark.parametrize("cell", ["1,5", "1.234,5", "12 €", "NaN", "inf", "1e5", "0x1", "١", "9" * 18, "-", "1."])
def test_what_is_no_number_is_bad_in_a_column_of_numbers(cell):
    line = from_csv(**{"age:number": cell})
    assert line.field == "attributes.age"
    assert "is no number: write it such as 1234.5" in line.reason


def test_a_column_of_booleans_holds_true_and_false_only():
    assert attributes(from_csv(**{"vip:boolean": "no"})) == {"vip": False}
    assert "none of true, false, yes, no, 1, 0" in from_csv(**{"vip:boolean": "vip"}).reason


def test_types_can_be_inferred_for_columns_that_name_none():
    data = "id,a,b,c,d,e,f,g:text\n1,30,007,TRUE,+43 1,1e5,-1.5,30\n"
    (row,) = read_csv(data, infer_types=True)
    assert attributes(row) == {"a": 30, "b": "007", "c": True, "d": "+43 1", "e": "1e5", "f": -1.5, "g": "30"}


def test_columns_of_numbers_that_are_kept_as_texts_are_pointed_out():
    data = "id,age,zip,plan,none,points:number\n1,30,01234,x,,5\n2,,1,7,,5\n"
    rows = CsvRows(io.BytesIO(data.encode()), encoding="utf-8", delimiter="", infer_types=False)
    assert len(list(rows)) == 2
    assert rows.number_like == ("age",)


def test_an_empty_cell_drops_the_attribute():
    row = from_csv(plan="pro", city=" ", **{"age:number": ""})
    assert attributes(row) == {"plan": "pro"}
    assert row.dropped == '{"city","age"}'


def test_a_column_of_json_objects_gives_attributes_and_a_column_of_its_own_wins():
    row = from_csv(attributes='{"plan": "free", "age": 30, "old": null, "deep": {"a": [1, "ä"]}}', plan="pro")
    assert attributes(row) == {"plan": "pro", "age": 30, "deep": {"a": [1, "ä"]}}
    assert row.dropped == '{"old"}'


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("{plan: pro}", "is no JSON .Expecting property name"),
        ("[1]", "is no object"),
        ('{"first name": 1}', "has a name that can't be queried"),
        ('{"a": NaN}', "holds NaN or Infinity"),
        ('{"a": 1e999}', "holds NaN or Infinity"),
        ('{"a": "\\u0000"}', "holds a NUL character"),
        ('{"a": "\\ud800"}', "holds half a surrogate pair"),
        ('{"a": ' + "[" * 33 + "]" * 33 + "}", "nested more than 32 levels deep"),
        ('{"a": ' + "[" * 50_000 + "}", "nested too deep"),
        ('{"a": ' + "9" * 5_000 + "}", "a number of thousands of digits"),
        ('{"a": "' + "x" * 17_000 + '"}', "longer than 16,384 characters"),
        (json.dumps({f"a{n}": "x" * 16_000 for n in range(5)}), "longer than 65,536 characters together"),
    ],
)
def test_attributes_that_cannot_be_kept_are_bad(cell, words):
    for line in (from_csv(attributes=cell), *read_ndjson(f'{{"external_id": "1", "attributes": {cell}}}')):
        assert isinstance(line, BadLine)
        assert re.search(words, line.reason)


def test_escaped_backslashes_are_no_nul():
    assert attributes(from_csv(attributes='{"a": "\\\\u0000"}')) == {"a": "\\u0000"}
    assert attributes(from_csv(attributes='{"a": "\\ud83d\\ude00"}')) == {"a": "\N{GRINNING FACE}"}


# Single values


@pytest.mark.parametrize("email", ["a@b.example", "jörg+x@bücher.example", "o'hara@b.example", "", "  a@b.example "])
def test_addresses_that_could_be_right_are_kept(email):
    assert from_csv(email=email).email == email.strip()


@pytest.mark.parametrize(
    "email",
    [
        *("a", "a b@c.example", "a@", "@b.example", "a@b@c.example", "a@b.example,c@d.example", "Eva <a@b.example>"),
        *("a@b.example\r\nBcc: c@d.example", "a@b.exam\nple", "x" * 320 + "@b.example", "mailto:a@b.example"),
    ],
)
def test_addresses_that_cannot_be_right_are_bad(email):
    for line in (from_csv(email=email), from_ndjson(email=email)):
        assert isinstance(line, BadLine)
        assert line.field == "email"


def test_a_reason_never_repeats_a_value():
    line = from_csv(email="secret secret@example.com")
    assert "secret" not in line.reason


@pytest.mark.parametrize(
    ("external_id", "words"),
    [("", "is empty"), ("   ", "is empty"), ("x" * 201, "has 201 characters; at most 200"), ("a\nb", "a line break")],
)
def test_an_id_is_needed_and_is_one_line(external_id, words):
    (line,) = read_csv(f'email,id\na@b.example,"{external_id}"\n')
    assert line.field == "external_id"
    assert words in line.reason


def test_locales_and_zones_are_kept_as_they_came_unless_they_do_not_fit():
    row = from_csv(locale="Klingon", time_zone="Mars/Olympus")
    assert (row.locale, row.time_zone) == ("Klingon", "Mars/Olympus")
    assert from_csv(locale="x" * 36).reason == "has 36 characters; at most 35 are allowed"
    assert from_csv(time_zone="x" * 65).reason == "has 65 characters; at most 64 are allowed"


@pytest.mark.parametrize("cell", ["a|b| c |a|", '["a", "b", "c"]', " a | b | c "])
def test_tags_are_separated_by_bars_or_a_json_list(cell):
    assert json.loads(from_csv(tags=cell).tags) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("[1]", "no list of texts"),
        ("[a", "is no JSON"),
        ("|".join(f"t{n}" for n in range(201)), "holds 201 tags; at most 200"),
        ("x" * 257, "a tag of more than 256 characters"),
    ],
)
def test_tags_that_cannot_be_kept_are_bad(cell, words):
    assert words in from_csv(tags=cell).reason


@pytest.mark.parametrize(
    ("word", "agreed"), [("true", True), ("YES", True), ("1", True), ("False", False), ("no", False)]
)
def test_consent_is_read_from_the_usual_words(word, agreed):
    row = from_csv(consent_email=word, consent_push="", consent_in_app="0")
    assert json.loads(row.consent) == {"email": agreed, "in_app": False}


def test_an_invalid_consent_is_bad_and_never_taken_for_a_yes():
    for word in ("maybe", "opt-in", "2", "null", "-"):
        line = from_csv(consent_push=word)
        assert line.field == "consent_push"
        assert "true, false, yes, no, 1, 0" in line.reason


def test_devices_are_pairs_of_platform_and_token():
    row = from_csv(devices="iOS:abc| android:d:e:f |ios:abc|")
    assert json.loads(row.devices) == [
        {"platform": "ios", "token": "abc"},
        {"platform": "android", "token": "d:e:f"},
    ]
    assert from_csv(devices="").devices == "[]"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("abc", "unknown platform"),
        ("windows:abc", "unknown platform: write platform:token, with android, ios, web"),
        ("ios:", "a token that isn't 1 to 500 characters"),
        ("ios:a b", "a token that isn't 1 to 500 characters"),
        ("ios:" + "x" * 501, "a token that isn't 1 to 500 characters"),
        ("ios:a|web:a", "gives one token two platforms"),
        ("|".join(f"ios:{n}" for n in range(51)), "holds 51 devices; at most 50"),
    ],
)
def test_devices_that_cannot_be_kept_are_bad(cell, words):
    line = from_csv(devices=cell)
    assert line.field == "devices"
    assert words in line.reason


# NDJSON


def test_an_object_holds_all_that_is_known_of_a_person():
    row = from_ndjson(
        email="a@b.example",
        locale="de-AT",
        time_zone="Europe/Vienna",
        tags=["x"],
        consent={"email": True, "push": None},
        quiet_hours={"from": "22:00", "to": "07:00"},
        attributes={"age": 30, "old": None},
        devices=[{"platform": "web", "token": "t"}],
    )
    assert row == Row(
        1, "1", "a@b.example", "de-AT", "Europe/Vienna", '["x"]', '{"email":true}',
        '{"to": "07:00", "from": "22:00"}', '{"age": 30}', '{"old"}', '[{"platform":"web","token":"t"}]',
    )  # fmt: skip


def test_camel_case_and_whole_numbers_are_accepted():
    (row,) = read_ndjson('{"externalId": 42, "timeZone": "UTC"}')
    assert (row.external_id, row.time_zone) == ("42", "UTC")


def test_null_says_that_there_is_none_and_an_absent_key_says_nothing():
    assert from_ndjson() == Row(1, "1")
    row = from_ndjson(email=None, locale=None, tags=None, consent=None, attributes=None, devices=None)
    assert row == Row(1, "1", email="", locale="", tags="[]", consent="{}", attributes="{}", devices="[]")


def test_garbage_lines_are_bad_and_the_others_are_read():
    rows = read_ndjson(
        '\ufeff{"external_id": "1"}\r',
        "garbage",
        "",
        b'{"external_id": "\xff"}',
        '["a"]',
        "[" * 50_000,
        '{"external_id": "7"',
        '{"external_id": "' + "x" * MAX_LINE + '"}',
        '{"external_id": "9"}',
    )
    assert ids(rows) == [(1, "1"), (9, "9")]
    assert [line.line for line in bad(rows)] == [2, 4, 5, 6, 7, 8]
    assert "is no JSON (Expecting value, character 1)" in bad(rows)[0].reason
    assert "not valid UTF-8" in bad(rows)[1].reason
    assert "longer than" in bad(rows)[5].reason


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"external_id": None}, "external_id", "neither a text nor a whole number"),
        ({"external_id": True}, "external_id", "neither a text nor a whole number"),
        ({"external_id": ""}, "external_id", "is empty"),
        ({"email": 5}, "email", "is no text"),
        ({"email": "a\0@b.example"}, "", "NUL"),
        ({"locale": ["de"]}, "locale", "is no text"),
        ({"time_zone": {}}, "time_zone", "is no text"),
        ({"tags": "a|b"}, "tags", "no list of texts"),
        ({"tags": [1]}, "tags", "no list of texts"),
        ({"consent": True}, "consent", "is no object"),
        ({"consent": {"sms": True}}, "consent", "unknown channel: use email, push, in_app"),
        ({"consent": {"email": "yes"}}, "consent.email", "neither true nor false"),
        ({"attributes": []}, "attributes", "is no object"),
        ({"devices": {}}, "devices", "is no list of objects"),
        ({"devices": [{"platform": "ios"}]}, "devices", "a token that isn't"),
        ({"devices": [{"platform": "ios", "token": 5}]}, "devices", "a token that isn't"),
        ({"devices": [{"platform": "ios", "token": "t", "os": 1}]}, "devices", "an unknown key"),
        ({"plan": "pro"}, "plan", "is no field: use external_id, email"),
        ({"externalId": "2"}, "external_id", "is given twice"),
    ],
)
def test_a_value_of_a_wrong_type_makes_its_line_bad(fields, field, words):
    line = from_ndjson(**fields)
    assert line.field == field
    assert words in line.reason


def test_an_object_without_an_id_is_bad():
    (line,) = read_ndjson('{"email": "a@b.example"}')
    assert (line.field, line.reason) == ("external_id", "is missing: every person needs one")


def test_a_json_list_is_no_ndjson():
    with pytest.raises(Unreadable, match="is one JSON list: write one object a line"):
        read_ndjson("[", '{"external_id": "1"}', "]")


def test_cells_are_read_once_and_remembered_without_growing():
    many = "".join(f"{n},plan{n}\n" for n in range(5_000))
    rows = read_csv("id,plan\n" + many + many)
    assert [attributes(row)["plan"] for row in rows] == [f"plan{n}" for n in range(5_000)] * 2
