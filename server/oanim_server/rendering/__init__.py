"""Cloud rendering: renders that wait, are leased to workers, and are charged for their frames."""
