"""Typed resources. ``catalog`` lists the kinds, ``parse`` reads them; nothing is built before."""
