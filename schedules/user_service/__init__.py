"""The organisation's own user service, as `docs/contracts/user-service.yaml` has it.

counting         how many people it finds at this moment, for previews
mirror           its people, into the profiles kept here
client           its pages and counts over HTTP
reading          from the body of an answer to people
errors           what can go wrong with it
conformance      is one as the contract says?
"""
