"""The commands `zoo export` and `zoo evaluate`."""
