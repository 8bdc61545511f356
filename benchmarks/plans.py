"""Schedules that lie ahead, as many as a list of them should bear."""

from benchmarks.harness import execute

_SCHEDULES = """
INSERT INTO schedules_schedule (name, channel, audience_query, template_id, schedule_type, run_at, cron, time_zone,
    time_zone_mode, counts_toward_caps, misfire_grace_minutes, on_past, status, status_reason, next_run_at,
    next_occurrence_at, runs, zone_data, version, created_by, created_at, updated_at)
SELECT 'Schedule ' || md5(i::text), (ARRAY['email', 'push', 'in_app'])[1 + i %% 3], '{"all": []}', %(template)s,
       'once', at, '', 'UTC', 'fixed', true, 60, 'skip', (ARRAY['active', 'active', 'active', 'paused'])[1 + i %% 4],
       '', at, at, 0, '', 1, 'client:' || i %% 100, now() - i * interval '1 second', now() - i * interval '1 second'
FROM (SELECT i, now() + interval '30 days' + i * interval '1 minute' AS at FROM generate_series(1, %(count)s) AS i) AS s
"""


def insert(count: int, *, template_id: int) -> None:
    """One-offs from a month ahead on, a minute apart, of every channel, one in four of them paused."""
    execute(_SCHEDULES, {"template": template_id, "count": count})
    execute("VACUUM ANALYZE schedules_schedule")
