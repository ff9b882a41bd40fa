"""Everything for one machine: ``weft up`` and ``weft demo``."""
