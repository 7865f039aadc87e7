"""Who may call: accounts, their API keys, and how a key is recognised."""
