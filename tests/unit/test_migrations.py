"""Migrations run while the code of the release before is at work (docs/upgrading.md): what that must not notice.

Read from the operations, without a database. A migration that breaks a rule on purpose says why it may:
``reviewed = "0.3 no longer reads it"``, an attribute of the class.
"""

import re
from collections.abc import Iterator

import pytest
from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader

APPS = ("audit", "schedules", "delivery", "frontend")
# The history before the first release, with which no older code ever ran. What comes later is held to the rules.
BASELINE = {"audit": 6, "schedules": 28, "delivery": 20, "frontend": 5}
_GOES = (
    migrations.RemoveField,
    migrations.DeleteModel,
    migrations.RenameField,
    migrations.RenameModel,
    migrations.AlterModelTable,
)
_SQL = {
    r"\bSET\s+NOT\s+NULL\b": "has every row read under a lock: add a check NOT VALID, validate it, then set it",
    r"\bALTER\s+(COLUMN\s+)?\S+\s+(SET\s+DATA\s+)?TYPE\b": "writes the table anew under a lock",
    r"\bDROP\s+(TABLE|COLUMN)\b|\bRENAME\b": "takes away what the code before uses",
    r"\bCREATE\s+(UNIQUE\s+)?INDEX\s+(?!CONCURRENTLY)": "locks out writers while it is built: CONCURRENTLY",
    r"\bVACUUM\s+FULL\b|\bCLUSTER\b|\bLOCK\s+TABLE\b": "locks out everybody",
}


def faults(migration: migrations.Migration) -> Iterator[str]:
    """In words, each with its remedy; none for a migration that is safe, or says why it may."""
    if getattr(migration, "reviewed", ""):
        return
    made: set[str] = set()
    for operation in migration.operations:
        if isinstance(operation, migrations.SeparateDatabaseAndState):
            steps = operation.database_operations
        else:
            steps = [operation]
        for step in steps:
            if isinstance(step, migrations.CreateModel):
                made.add(step.name.lower())
            elif getattr(step, "model_name", "").lower() not in made:
                yield from _of(step)
    if migration.atomic and {type(each) for each in migration.operations} >= {
        migrations.RunPython,
        migrations.AddField,
    }:
        yield "moves data in the transaction that changes a table, which is locked all that time: two migrations"


def _of(operation: object) -> Iterator[str]:
    if isinstance(operation, _GOES):
        yield f"{operation.describe()}: the code before uses it. First a release without it, then this one"
    elif isinstance(operation, migrations.AddField):
        field = operation.field
        if not (field.null or field.many_to_many or field.has_db_default()):
            yield f"{operation.describe()}: the code before writes rows without it. null=True or db_default"
        if field.unique or field.db_index:
            yield f"{operation.describe()}: its index locks out writers. AddIndexConcurrently, in one of its own"
    elif isinstance(operation, migrations.AlterField):
        yield f"{operation.describe()}: may write or read the whole table under a lock. Say why not: reviewed = '...'"
    elif isinstance(operation, migrations.AddIndex) and not isinstance(operation, AddIndexConcurrently):
        yield f"{operation.describe()}: locks out writers while it is built. AddIndexConcurrently"
    elif isinstance(operation, migrations.AddConstraint) and not isinstance(operation, AddConstraintNotValid):
        yield f"{operation.describe()}: every row is read under a lock. AddConstraintNotValid, then ValidateConstraint"
    elif isinstance(operation, migrations.AlterUniqueTogether):
        yield f"{operation.describe()}: locks out writers. A unique index concurrently, then the constraint by it"
    elif isinstance(operation, migrations.RunSQL):
        text = operation.sql if isinstance(operation.sql, str) else " ".join(map(str, operation.sql or ()))
        yield from (f"{found[0]} {what}" for rule, what in _SQL.items() if (found := re.search(rule, text, re.I)))


def _number(name: str) -> int:
    return int(name.partition("_")[0])


def _ours() -> dict[tuple[str, str], migrations.Migration]:
    disk = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    return {key: each for key, each in disk.items() if key[0] in APPS}


def test_migrations_since_the_first_release_are_safe_while_the_code_before_runs():
    new = {key: each for key, each in _ours().items() if _number(key[1]) > BASELINE[key[0]]}
    found = {".".join(key): said for key, each in sorted(new.items()) if (said := list(faults(each)))}
    assert not found


class _Safe(migrations.Migration):
    atomic = False
    operations = [
        migrations.CreateModel("New", [("id", models.BigAutoField(primary_key=True))]),
        migrations.AddIndex("new", models.Index(fields=["id"], name="of_a_new_table")),
        migrations.AddField("schedule", "note", models.TextField(null=True)),
        migrations.AddField("schedule", "size", models.IntegerField(db_default=0)),
        AddIndexConcurrently("schedule", models.Index(fields=["note"], name="by_note")),
        AddConstraintNotValid("schedule", models.CheckConstraint(condition=models.Q(size__gte=0), name="no_less")),
        migrations.RunSQL("CREATE INDEX CONCURRENTLY x ON schedules_schedule (note)"),
    ]


def test_what_the_code_before_does_not_notice_passes():
    assert not list(faults(_Safe("0099_safe", "schedules")))


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (migrations.AddField("schedule", "x", models.TextField(default="")), "null=True or db_default"),
        (migrations.AddField("schedule", "x", models.TextField(null=True, db_index=True)), "index"),
        (migrations.RemoveField("schedule", "x"), "First a release without it"),
        (migrations.RenameField("schedule", "x", "y"), "First a release without it"),
        (migrations.DeleteModel("Schedule"), "First a release without it"),
        (migrations.AlterField("schedule", "x", models.BigIntegerField()), "reviewed"),
        (migrations.AddIndex("schedule", models.Index(fields=["x"], name="by_x")), "AddIndexConcurrently"),
        (
            migrations.AddConstraint("schedule", models.UniqueConstraint(fields=["x"], name="one_x")),
            "AddConstraintNotValid",
        ),
        (migrations.RunSQL("ALTER TABLE t ALTER COLUMN x TYPE bigint"), "anew"),
        (migrations.RunSQL("ALTER TABLE t ALTER x SET NOT NULL"), "NOT VALID"),
        (migrations.RunSQL("create unique index i on t (x)"), "CONCURRENTLY"),
    ],
    ids=lambda each: each.describe()[:40] if hasattr(each, "describe") else "",
)
def test_what_it_would_notice_is_named_with_the_remedy(operation, words):
    unsafe = type("Unsafe", (migrations.Migration,), {"operations": [operation]})
    (said,) = faults(unsafe("0099_unsafe", "schedules"))
    assert words in said
    may = type("May", (migrations.Migration,), {"operations": [operation], "reviewed": "nothing older runs"})
    assert not list(faults(may("0099_may", "schedules")))
