"""Policies with evidence: what a change of them would have done to the traffic that was seen.

``observed``   flows as the telemetry store tells them
``bounds``     rules about what was not recorded: once in favour of a request, once against it
``judge``      a flow walked through the configuration that its destination would run
``replay``     the same flows before and after a change
``suggest``    the least that allows what was seen
``unused``     what is granted, and nobody used
"""
