"""The gRPC edge: who calls, whether they may, how a refusal looks. It decides nothing about money."""
