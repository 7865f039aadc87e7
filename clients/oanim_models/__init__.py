"""What the published models cost, what an input asks for, and how fal.ai's queue is spoken to.

The server and the command line's direct-key mode both build on this package, so it imports neither.
"""
