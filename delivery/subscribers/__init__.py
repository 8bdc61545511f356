"""Telling programs of others what happened here: endpoints, events, and the attempts to bring them there.

``telling`` makes events of what is committed and addresses them; ``calling`` brings them, each endpoint by itself and
away from all sending; ``operations`` is what people and programs may do. docs/events.md tells subscribers what they
get, docs/adr/0025-outgoing-events.md why it is done so.
"""
