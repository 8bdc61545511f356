"""The organisation's own template service, as `docs/contracts/template-service.yaml` has it.

client         its templates, and messages rendered by it, over HTTP
reading        from the body of an answer to templates and messages
errors         what can go wrong with it
"""
