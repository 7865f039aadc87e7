"""What rendering with Remotion takes, wherever it happens: driving it, and the bundles it is driven with.

The command line renders with this package, the server checks with it what it is sent, and the farm does both;
so it imports none of them, and nothing beyond the standard library.
"""
