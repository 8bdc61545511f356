"""The organisation's own user service, as `docs/contracts/user-service.yaml` has it.

client          its pages and counts over HTTP, and what can go wrong with them
"""
