"""The same work as one would write it by hand: a transaction a call, on plain PostgreSQL.

A wallet row is locked, looked at and updated in each. What it has not: a network edge with keys, rates and
refusals; lots, limits and expiry; answers that are kept for a key (a key is unique, that is all); a hash
chain; an audit. What it has and the service has not: nothing between the caller and the database.
"""
