"""Typed resources. ``catalog`` lists the kinds, ``parse`` reads them; nothing is built until it is asked for."""
