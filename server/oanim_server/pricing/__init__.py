"""What work costs: published versions of the price table, and quotes by them."""
