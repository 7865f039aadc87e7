"""The commands about credits: what there is, what it is made of, and how to get more."""
