"""The service as seen from outside, by HTTP alone: the check after a deployment, and the load of a rehearsal."""
