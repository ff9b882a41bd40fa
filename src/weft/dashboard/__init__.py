"""The dashboard: an ASGI application of server-rendered pages, given its readers.

It imports nothing of the mesh. What it shows comes through `Readers` (readers.py), who it is shown to is
decided by the `Door` (door.py), and what there is to see are the rows of `PAGES` (pages.py).

A page is a function from a `Visit` to the variables of its template. The same function answers twice: with
the whole page, and, asked for ``text/event-stream``, again and again with the content of ``<main>``
whenever it became different; static/live.js puts the differences into the document. So a page needs no code
of its own to be live. What a script draws bears ``data-keep`` (its content is left alone) and is told of
news by the event ``weft:tick`` on ``document``.

Scripts are plain ES modules, no inline script or style is allowed by the Content-Security-Policy, and HTML
from text is made by the template engine only (Trusted Types refuse other ways). Charts are
``<figure data-chart=…>`` (macro ``chart`` in templates/parts.html), which static/charts.js draws from
``/data/QUESTION?…``, the answers of telemetry: ``keepCharts()`` of that module is called on pages that have
one. ``data-chart`` is ``lines`` (an answer of ``series``) or ``heat`` (its ``metric=latency``), ``data-src``
the address of the answer, ``data-title`` what it is called, ``data-more`` further addresses with commas,
drawn into the same axes, ``data-marks`` the address of ``changes``, marked on the axis of time.
"""
