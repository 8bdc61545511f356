"""Is a user service as `docs/contracts/user-service.yaml` says? Asked over HTTP, of whatever people it has.

    suite                       all checks
    answers, paging, selecting  the checks: what it answers, its pages, whom an audience selects
    subject                     the service under check: what was asked, and a few of its people to ask about

Nobody knows beforehand whom a service has. So some of its people are sampled, and audiences are made that must select
certain ones of them: `schedules.audience.matching` tells which.
"""
