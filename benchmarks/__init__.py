"""What the service costs, measured against an echo served by the same process in the same run."""
