"""Where things are kept: the engine, the tables, their migrations and the hot statements of each database."""
