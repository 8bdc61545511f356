"""The organisation's own user service, as `docs/contracts/user-service.yaml` has it.

counting         how many people it finds at this moment, for previews
mirror           its people, into the profiles kept here
standing         what is kept of them already, and what of its words is new
devices          the same of their devices
left_alone       for how long nobody asks it, since it gave no answer
client           its pages and counts over HTTP
reading          from the body of an answer to people
errors           what can go wrong with it
conformance      is one as the contract says?
"""
