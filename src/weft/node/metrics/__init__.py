"""One page of series for a whole host: its sidecars', their applications', its own."""
