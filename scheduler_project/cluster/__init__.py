"""A deployment's topology as processes of one machine (``manage.py cluster``).

Two zones, a and b, with everything twice: a web server, a server of streams, beat, a worker for each queue, a reader of
the provider's events, and a PgBouncer in transaction mode. Outside of them, once: HAProxy in front; PostgreSQL, a Redis
for the broker, a Redis Cluster of three nodes for the counters; stubs in the place of Amazon SES and FCM.

    run        the program: start, say where to look, stop
    check      one send through all of it, beside a rolling restart, with figures
    rolling    a restart of everything, one process after another
    cluster    all of it, running: what may be done to it
    watch      what a deployment's Prometheus says of it
    zones      the processes of a zone
    ground     what stands outside of the zones
"""
