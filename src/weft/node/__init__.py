"""The host agent: captures traffic, keeps keys, and looks after the sidecars of one host."""
