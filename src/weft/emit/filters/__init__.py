"""HTTP filters: one file each, one row each in ``table``; the table's order is the order of a request."""
