"""What proxies tell of their traffic, in a process of its own: received, aggregated, kept, answered.

The control plane starts ``python -m weft.telemetry`` (``weft.control.telemetry``), hands it its certificates
by standard input, and asks it by a Unix socket. Proxies push OTLP over gRPC with their own certificates to a
port of its own, so a flood of spans never delays xDS; without this process, traffic and configuration go on.

How a message travels::

    server    gRPC, mutual TLS: who reports is read out of the certificate, never out of the message
    intake    a queue bounded in bytes; what does not fit is refused and counted
    otlp      protobuf -> Report, Span: plain values, with hostile text made harmless
    flows     who called what, how often, with which outcome: one entry for each distinct flow
      templates   /users/17 -> /users/{*}, by form and by number
    metrics   what proxies count, as rows of series   ·   tellers   which of them tell, and what is missing
    series    who called whom with which outcome, every 10 s of an hour   ·   histogram   durations
    rows      what a series counted, as one number   ·   rollups   the same on disk, by minute, quarter, hour
    calls     both ends tell of a call: which of them counts, and the edges between workloads
    windows   what came since then: from memory, or from rollups
    archive   SQLite: what survives a restart; bounded in rows, age and bytes
    store     all of these together: takes messages in, writes them down, lets go of the old
    push      sums for collectors of others: a package of its own
    taps      requests that somebody watches, in memory only   ·   traces   finding those that were kept
    golden, charts, estimates   the questions about metrics   ·   selection   what they are about
    answers   questions by name (``QUESTIONS``), each a function of the store and its parameters
    inquiry   the Unix socket (0600): one JSON object a line, asked by the control plane and answered here

Beside these, pure and without any of them, is what commands make of the answers: ``targets`` (whom a name
means), ``waterfall`` (a trace as rows), ``compare`` (two versions), ``graph`` (for other tools), ``top``.

To add a kind of question (``stat``, ``edges``, ``top`` …): a function in ``answers`` and its row in
``QUESTIONS``; the control plane serves it as ``GET /weft/v1/telemetry/NAME`` without further ado.

Everything in memory and on disk is bounded by ``limits.Limits``, and whatever is dropped is counted in
``limits.Losses``, which ``/weft/v1/telemetry/health`` and ``/metrics`` show.
"""
