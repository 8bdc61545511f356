"""Is a template service as `docs/contracts/template-service.yaml` says? Asked over HTTP, of whatever templates it has.

    suite       all checks
    listing     the checks of what it has: that it answers at all, the list, one template, refusals
    rendering   the checks of what it writes
    subject     the service under check: what was asked, and some of its templates to ask about

Nobody knows beforehand which templates a service has, nor what they say. So some are sampled, and given values that can
be found again in what comes. No person's data is sent.
"""
