"""Metrics for collectors of others, by OTLP: whatever proxies tell, as sums since they were first heard of.

    plan     what the control plane wants: collectors, and whose series go to which
    sums     growth -> sums, for each proxy and series; bounded
    encode   sums -> OTLP, by the bytes
    pages    Prometheus' text of the control plane and of nodes -> OTLP
    bridge   one way to a collector: its endpoints by turns, TLS and the names it may have
    sender   a message to it, by gRPC or HTTP, and what it says to that
    pusher   all of these together: a task for each collector

Sums, not growth, so that nothing has to be kept for a collector that is away: the next message says all that
a lost one said. A collector that is slow or down costs one message of memory, and the intake never waits.
"""
