"""The heart: every movement of money, decided in memory and committed in groups."""
