"""The HTTP edge: whether the server is well, and what it has done."""
