"""Selling credits: a page of Stripe's, what Stripe then says of it, and what the ledger makes of that."""
