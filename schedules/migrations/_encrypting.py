"""How migrations encrypt columns that stood in clear: those beside them whose names end in ``_plain``.

In pieces that are committed one by one: killed half-way it goes on where it was. There is no way back but a backup.
Write-ahead log and backups from before still hold what was in clear, until they are thrown away.
"""

from schedules import encryption
from schedules.fields import place

CHUNK = 2_000


def encrypt_texts(cursor, table, columns, *, nothing="''"):
    """Encrypt; ``columns`` maps each to the function that makes its blind index, or None.

    What was in clear becomes ``nothing``, as SQL.
    """
    after = 0
    written, made, types = ["id"], [], ["bigint"]
    for column, index_of in columns.items():
        written.append(column)
        types.append("bytea")
        if index_of:
            written.append(f"{column}_index")
            types.append("uuid")
        made.append(f"{column}_plain = {nothing}")
    made += [f'"{name}" = v."{name}"' for name in written[1:]]
    given = ", ".join(f"%s::{kind}[]" for kind in types)
    names = ", ".join(f'"{name}"' for name in written)
    while True:
        plain = ", ".join(f"COALESCE({column}_plain, '')" for column in columns)
        cursor.execute(
            f"SELECT id, {plain} FROM {table} WHERE id > %s AND concat({plain}) <> '' ORDER BY id LIMIT %s",
            [after, CHUNK],
        )
        rows = cursor.fetchall()
        if not rows:
            return
        ids, *texts = (list(each) for each in zip(*rows))
        values = [ids]
        for (column, index_of), found in zip(columns.items(), texts):
            values.append(encryption.encrypt_all(found, place(table, column)))
            if index_of:
                values.append([index_of(text) for text in found])
        cursor.execute(
            f"UPDATE {table} t SET {', '.join(made)} FROM unnest({given}) AS v({names}) WHERE t.id = v.id", values
        )
        after = ids[-1]


def rewrite(cursor, table):
    """Leave nothing of the rows as they were: neither what updates left behind nor the planner's samples.

    Whoever encrypted them: a run before this one may have been killed, or had no room, before it got here.
    """
    cursor.execute("SELECT pg_relation_size(%s::regclass)", [table])
    if not cursor.fetchone()[0]:
        return
    cursor.execute(f"VACUUM (FULL, ANALYZE) {table}")
    cursor.execute("VACUUM FULL pg_statistic")  # no more than a warning to who isn't a superuser
