"""The calls of the contract: one function for each, from keyword arguments to the request that is sent.

Both clients are made of these functions, so that a call has one signature and one sentence of documentation.
"""
