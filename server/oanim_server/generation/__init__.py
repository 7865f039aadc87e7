"""Generations: work that the server has a provider do, held before, settled exactly once after."""
