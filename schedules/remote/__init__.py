"""What the organisation's own services have in common: the user service and the template service.

http       one request, answered whole or not at all
reading    from the body of an answer to its members
errors     what can go wrong
"""
