"""The render worker: leases renders from the service, renders them with Remotion, and delivers the videos.

It is a client of the service like any other, and imports nothing of the server.
"""
